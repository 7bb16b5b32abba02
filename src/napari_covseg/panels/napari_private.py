"""Every private thing of napari that this package touches, each with what to do when it goes.

napari may rename any of them in any release. Nothing else in the package may use a name of
napari that begins with an underscore; a test holds that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from napari import Viewer
from napari.layers import Labels
from qtpy.QtWidgets import QDialog

READING_MS = 70
"""Time to read a letter: slowly."""

# --- the window -------------------------------------------------------------------


def qt_window(viewer: Viewer) -> Any:
    """Return the viewer's QMainWindow.

    When it goes: find it among ``QApplication.topLevelWidgets()`` by the dock that lies in it.
    """
    return viewer.window._qt_window


def canvas_widget(viewer: Viewer) -> Any:
    """Return the QWidget of the picture, which takes the viewer's keys.

    When it goes: the central widget of `qt_window`.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hands plugins a proxy that shuts it off
    return viewer.window._qt_viewer.canvas.native


def camera(viewer: Viewer) -> Any:
    """Return the viewer's camera, which napari 0.9 moved to the scene.

    When napari 0.8 need not be supported: ``viewer.scene.camera``.
    """
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def canvas_overlays(viewer: Viewer) -> Any:
    """Return the dict of things that are drawn on the canvas.

    When napari 0.8 need not be supported: ``viewer.canvas.overlays``, which is public.
    """
    return viewer.canvas.overlays if hasattr(viewer, "canvas") else viewer._overlays


def hide_brush_box(viewer: Viewer) -> None:
    """Draw no box behind the brush's circle.

    napari forgets to hide it with the circle. In an empty viewer it is then all that is
    drawn, and there Mesa's software OpenGL crashes when the layers' shaders were deleted.
    When the name goes nothing happens here; see whether the box is hidden by then.
    """
    circle = canvas_overlays(viewer).get("_brush_circle")
    if hasattr(circle, "box"):
        circle.box = False


def open_notifications(viewer: Viewer) -> None:
    """Show all of each notification on the viewer's canvas that is longer than its line, and longer.

    When a name goes nothing happens here: what does not fit is cut off until its arrow is clicked.
    """
    for shown in canvas_widget(viewer).findChildren(QDialog):
        if hasattr(shown, "expand") and not shown.property("expanded"):
            text, sliding = shown.message, shown.geom_anim
            if text.fontMetrics().horizontalAdvance(text.text()) < text.width() and "\n" not in text.text():
                continue
            shown.timer.setInterval(max(shown.timer.interval(), READING_MS * len(text.text())))
            if sliding.state() == sliding.State.Running:  # it would end where the one line lay
                sliding.finished.connect(partial(_open, shown))
            else:
                _open(shown)


def _open(shown: Any) -> None:
    if not shown.property("expanded"):
        shown.expand()


# --- the history of a labels layer --------------------------------------------------

# Undo and redo are public, but neither what they will do nor what they did is. When one of
# these goes: keep a history of our own from the event `labels_update`, and bind Ctrl+Z and
# Ctrl+Shift+Z of the case's layers to it, as `keys` binds other keys.


def undo_history(layer: Labels) -> Any:
    """Return the steps that can be undone, the last one last; each is a list of entries."""
    return layer._undo_history


def redo_history(layer: Labels) -> Any:
    """Return the steps that can be redone, the next one last; each is a list of entries."""
    return layer._redo_history


def staged_history(layer: Labels) -> Sequence[Any]:
    """Return the entries of the step that is being made, as while one drags."""
    return layer._staged_history  # type: ignore[no-any-return]


def is_in_step(layer: Labels) -> bool:
    """Return whether a step is being made, which ends with ``layer.block_history()``."""
    return bool(layer._block_history)


def add_entry(layer: Labels, entry: Any) -> None:
    """Add an entry to the layer's history without changing its data."""
    layer._save_history(entry)


# --- methods through which a labels layer is painted ----------------------------------

# napari has no event before a voxel changes. When one of these goes, what was protected is
# still put back after each step (`Strokes._put_back`); it is seen to flicker then.
PAINT = "_apply_mask_to_data"
"""Brush, eraser, fill and polygon; takes data, mask, new label, place, and returns what it painted."""
SAVE = "_save_history"
"""Every entry of the history; takes the entry."""
ABORT = "_abort_stroke"
"""Escape in the middle of a drag; napari 0.8 has none."""


def wrap(layer: Labels, name: str, wrapper: Callable[..., Any]) -> None:
    """Have a method of one layer go through `wrapper`, which takes the method itself first.

    Nothing happens if this napari has no such method.
    """
    kind = type(layer)
    if hasattr(kind, name):

        def call(*args: Any, **kwargs: Any) -> Any:
            return wrapper(lambda *a, **k: getattr(kind, name)(layer, *a, **k), *args, **kwargs)

        setattr(layer, name, call)


def unwrap(layer: Labels, *names: str) -> None:
    """Give a layer its own methods back."""
    for name in names:
        layer.__dict__.pop(name, None)
