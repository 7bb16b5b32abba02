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
