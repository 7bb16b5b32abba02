"""R / L / A / P / H / F on the edges of the canvas: which side of the patient is where."""

from __future__ import annotations

from typing import Any

from napari import Viewer
from napari.components.overlays import TextOverlay

from napari_covseg.panels.layers import z_axis
from napari_covseg.panels.napari_private import camera, canvas_overlays

# In a case's array z rises to the head, y to the back, x to the patient's left.
LETTERS = {0: ("F", "H"), 1: ("A", "P"), 2: ("R", "L")}
SIDES = {
    "top": "top_center",
    "bottom": "bottom_center",
    "left": "middle_left",
    "right": "middle_right",
}
COLOUR = (1.0, 0.85, 0.35, 1.0)
BEHIND = (0.0, 0.0, 0.0, 0.5)


def letters_for(displayed: tuple[int, ...], vertical: str, horizontal: str) -> dict[str, str]:
    """Return the letter of each side of the canvas.

    Parameters
    ----------
    displayed : tuple of int
        The two axes drawn: downwards (or upwards), and to the side.
    vertical : {"down", "up"}
        Where the first axis rises to on the screen.
    horizontal : {"right", "left"}
        Where the second axis rises to.
    """
    top, bottom = LETTERS[displayed[0]]
    left, right = LETTERS[displayed[1]]
    if vertical == "up":
        top, bottom = bottom, top
    if horizontal == "left":
        left, right = right, left
    return {"top": top, "bottom": bottom, "left": left, "right": right}


class OrientationLetters:
    """Keeps the letters right while axes are rolled, swapped or flipped.

    Parameters
    ----------
    viewer : Viewer
        Whose canvas gets them; they show only while `visible` and in 2-D.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._visible = False
        self._overlays = {
            side: TextOverlay(
                text="", position=position, font_size=16, color=COLOUR, box_color=BEHIND, visible=False
            )
            for side, position in SIDES.items()
        }
        for side, overlay in self._overlays.items():
            canvas_overlays(viewer)[f"covseg_{side}"] = overlay
        viewer.dims.events.order.connect(self._on_axes_changed)
        viewer.dims.events.ndisplay.connect(self._on_axes_changed)
        viewer.dims.events.ndim.connect(self._on_axes_changed)
        camera(viewer).events.orientation.connect(self._on_view_changed)

    @property
    def visible(self) -> bool:
        """Whether the letters are wanted; in 3-D they hide all the same."""
        return self._visible

    @visible.setter
    def visible(self, visible: bool) -> None:
        self._visible = visible
        self._on_axes_changed()

    def texts(self) -> dict[str, str]:
        """Return the letters that are drawn now, by side."""
        return {side: overlay.text for side, overlay in self._overlays.items() if overlay.visible}

    def _on_axes_changed(self, event: Any = None) -> None:
        shown = self._shown()
        if shown:
            # z rises to the head, so coronal and sagittal pictures stand on their feet
            vertical = "up" if shown[0] == 0 else "down"
            camera(self._viewer).orientation2d = (vertical, "right")
        self._on_view_changed()

    def _on_view_changed(self, event: Any = None) -> None:
        shown = self._shown()
        if shown:
            vertical, horizontal = (str(to) for to in camera(self._viewer).orientation2d)
            for side, letter in letters_for(shown, vertical, horizontal).items():
                self._overlays[side].text = letter
        for overlay in self._overlays.values():
            overlay.visible = bool(shown)

    def _shown(self) -> tuple[int, ...]:
        """Return the scan's axes that are drawn, none where there are not two or no letters are wanted."""
        dims = self._viewer.dims
        axes = tuple(axis - z_axis(self._viewer) for axis in dims.displayed)
        wanted = self._visible and dims.ndisplay == 2 and dims.ndim >= 3
        return axes if wanted and min(axes) >= 0 else ()
