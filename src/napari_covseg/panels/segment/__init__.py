"""Step 2: a model labels the scan."""
