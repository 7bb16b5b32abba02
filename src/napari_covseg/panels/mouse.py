"""The mouse as radiology workstations have it: wheel scrolls, right-drag sets the window."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from napari import Viewer
from napari.layers import Image

from napari_covseg.panels.layers import z_axis
from napari_covseg.panels.napari_private import camera

HU_PER_PIXEL = 2.0
ZOOM_PER_NOTCH = 1.15
HINT = (
    "Wheel: one slice at a time, towards you goes to the feet.\n"
    "Shift + wheel: zoom.\n"
    "Right button and drag: sideways sets the window's width, up and down its level.\n"
    "Left button and drag: move the picture, as before.\n"
    "While a brush is chosen the right button keeps what napari does with it."
)


class RadiologyMouse:
    """Wheel and right button of one viewer, switched on and off as a whole.

    Parameters
    ----------
    viewer : Viewer
    image : callable
        Returns the image layer whose window the right button sets, or None.
    """

    def __init__(self, viewer: Viewer, image: Callable[[], Image | None]) -> None:
        self._viewer = viewer
        self._image = image
        self._notches = 0.0

    @property
    def enabled(self) -> bool:
        """Whether the mouse works like a workstation's."""
        return self._on_wheel in self._viewer.mouse_wheel_callbacks

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        if enabled == self.enabled:
            return
        wheel, drag = self._viewer.mouse_wheel_callbacks, self._viewer.mouse_drag_callbacks
        if enabled:
            wheel.append(self._on_wheel)
            drag.append(self._on_drag)
        else:
            wheel.remove(self._on_wheel)
            drag.remove(self._on_drag)

    def _on_wheel(self, viewer: Viewer, event: Any) -> None:
        notches = float(event.delta[1])
        if not notches or viewer.dims.ndisplay == 3:
            return
        if "Shift" in event.modifiers:
            camera(viewer).zoom *= ZOOM_PER_NOTCH**notches
            event.handled = True
        elif not event.modifiers:
            # a touchpad sends fractions of a notch
            self._notches += notches
            whole = int(self._notches)
            self._notches -= whole
            z = z_axis(viewer)
            if whole and (hidden := [axis for axis in viewer.dims.not_displayed if axis >= z]):
                axis = hidden[0]
                viewer.dims.set_current_step(axis, viewer.dims.current_step[axis] + whole)
            event.handled = True

    def _on_drag(self, viewer: Viewer, event: Any) -> Generator[None, None, None]:
        image = self._image()
        active = viewer.layers.selection.active
        painting = active is not None and str(active.mode) not in ("pan_zoom", "transform")
        if event.button != 2 or image is None or painting:
            return
        x0, y0 = event.pos
        low, high = image.contrast_limits
        per_pixel = HU_PER_PIXEL * max((high - low) / 1000, 0.05)
        event.handled = True
        yield
        while event.type == "mouse_move":
            x, y = event.pos
            width = max(high - low + (x - x0) * per_pixel, 1.0)
            level = (low + high) / 2 + (y - y0) * per_pixel
            set_window(image, level, width)
            event.handled = True
            yield
        event.handled = True


def set_window(image: Image, level: float, width: float) -> None:
    """Draw an image layer with this level and width, in HU (or grey values)."""
    low, high = level - width / 2, level + width / 2
    range_low, range_high = image.contrast_limits_range
    if low < range_low or high > range_high:
        # napari clips limits to the range, so the range has to grow first
        image.contrast_limits_range = min(low, range_low), max(high, range_high)
    image.contrast_limits = low, high
