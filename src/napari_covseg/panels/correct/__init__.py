"""Step 3: brush and tools, the review of the slices, and the history of the case."""
