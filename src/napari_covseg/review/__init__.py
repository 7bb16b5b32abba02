"""Which slice is worth a look next, and what is known of each."""

__all__ = ["order"]
