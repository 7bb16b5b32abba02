"""Step 4: the model learns from corrections."""
