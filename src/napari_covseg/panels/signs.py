"""Signs in colour that are seen on the dark and the light theme of napari alike, as rich text.

Words have the theme's own colour: no other can be read on both.
"""

from __future__ import annotations

from html import escape

WARNING, GOOD = "#b86a00", "#2a8c50"
GROUND = (32, 35, 41)
"""Behind curves and the strip, in any theme: what the colours of labels and states are chosen for."""


def warning(text: str) -> str:
    """Return plain text as rich text that is seen to matter."""
    return f"<b style='color:{WARNING}'>⚠</b> {escape(text)}"


def swatch(sign: str, colour: tuple[int, int, int]) -> str:
    """Return a sign in a colour of a label or a state, on the ground that these have elsewhere."""
    shades = ("#{:02x}{:02x}{:02x}".format(*one) for one in (colour, GROUND))
    return "<span style='color:{}; background-color:{}'>{}</span>".format(*shades, sign)
