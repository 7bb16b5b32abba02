"""Parts of a viewer that napari 0.9 moved to models of their own."""

from __future__ import annotations

from typing import Any

from napari import Viewer


def camera(viewer: Viewer) -> Any:
    """Return the viewer's camera."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def canvas_overlays(viewer: Viewer) -> Any:
    """Return the dict of things that are drawn on the canvas."""
    return viewer.canvas.overlays if hasattr(viewer, "canvas") else viewer._overlays


def hide_brush_box(viewer: Viewer) -> None:
    """Draw no box behind the brush's circle.

    napari forgets to hide it with the circle. In an empty viewer it is then all that is
    drawn, and there Mesa's software OpenGL crashes when the layers' shaders were deleted.
    """
    circle = canvas_overlays(viewer).get("_brush_circle")
    if hasattr(circle, "box"):
        circle.box = False
