"""The sample scan of napari's menu: the phantom."""

from __future__ import annotations

from napari_covseg._reader import LayerData, image_layer
from napari_covseg.scans.phantom import phantom

SEED = 7
SHAPE = (80, 256, 256)
SPACING = (4.0, 1.4, 1.4)


def make_sample_data() -> list[LayerData]:
    """Return the phantom as one image layer, as the reader would return it from a file.

    It reaches from the base of the neck to the upper abdomen, and its lungs hold
    ground-glass and consolidation.
    """
    return [image_layer(phantom(seed=SEED, shape=SHAPE, spacing=SPACING).scan)]
