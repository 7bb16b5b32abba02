"""Step 5: labels as files."""
