"""Between the scan and its labels: what networks say that it shows."""
