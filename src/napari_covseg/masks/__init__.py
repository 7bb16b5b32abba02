"""Masks in, masks out: connected parts, distances, right and left; what predict, edit and measure share."""

__all__ = ["distance", "grid", "parts", "sides"]
