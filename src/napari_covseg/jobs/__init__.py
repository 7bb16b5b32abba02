"""Work as data: requests, events, and where they run."""
