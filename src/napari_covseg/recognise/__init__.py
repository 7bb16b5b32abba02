"""Pictures and scans in, what they show: probabilities by slice and for the scan, heat maps, a verdict."""

__all__ = ["answers", "recogniser"]
