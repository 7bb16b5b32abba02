"""Scan in, labels out."""
