"""Step 1: open a scan, and see what it is."""
