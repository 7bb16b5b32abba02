"""The sample scan of napari's menu: the phantom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_covseg.panels.layers import METADATA_KEY, WINDOWS, geometry
from napari_covseg.scans.phantom import phantom

if TYPE_CHECKING:
    from napari.types import LayerDataTuple

SEED = 7
SHAPE = (80, 256, 256)
SPACING = (4.0, 1.4, 1.4)


def make_sample_data() -> list[LayerDataTuple]:
    """Return the phantom as an image layer: data int16 HU (z, y, x), attributes, type.

    The layer's metadata hold the scan's header, so that a step which takes the layer as
    its scan loses nothing of the geometry.
    """
    scan = phantom(seed=SEED, shape=SHAPE, spacing=SPACING).scan
    attributes = {
        "name": scan.name,
        "colormap": "gray",
        "contrast_limits": WINDOWS["Lung"].limits,
        "metadata": {METADATA_KEY: {"role": "scan", "header": scan.header()}},
        **geometry(scan.spacing),
    }
    return [(scan.voxels, attributes, "image")]
