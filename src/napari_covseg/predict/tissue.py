"""What cannot be lung by its Hounsfield units, whatever a network says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_covseg.predict.outlines import parts

_EDGES_HU = (-950, -200, -30)
"""Gas, aerated lung or ground-glass, fat, soft tissue: the ends of the first three."""
_STRIDE = 2


def drop_gas_and_fat(lungs: npt.NDArray[np.uint8], voxels: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Drop parts of a slice's lungs that consist of gas or of fat.

    Equalised slices show fat darker than muscle and bowel gas darker still, so that a
    network takes either for lung now and then, and the air around the body as well. Hounsfield
    units tell: a part is dropped when three fifths of it are fat, or when a fifth is gas and less
    than two fifths have the density of lung tissue. Emphysema keeps its share of lung tissue and
    stays; so does a consolidated lung, which is neither gas nor fat.

    Parameters
    ----------
    lungs : ndarray of uint8, shape (y, x)
        Lung where not 0.
    voxels : ndarray of int16, shape (y, x)
        HU.

    Returns
    -------
    ndarray of uint8, shape (y, x)
    """
    out = lungs
    for box, here in parts(lungs):
        few = (slice(None, None, _STRIDE),) * 2  # a quarter of the voxels is enough to tell
        values = voxels[box][few][here[few]]
        below = [np.count_nonzero(values <= edge) / max(values.size, 1) for edge in _EDGES_HU]
        gas, tissue, fat = np.diff(below, prepend=0.0)
        if fat > 0.6 or (gas > 0.2 and tissue < 0.4):
            out = out.copy() if out is lungs else out
            out[box][here] = 0
    return out
