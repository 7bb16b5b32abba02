"""Labels in, a better model out."""
