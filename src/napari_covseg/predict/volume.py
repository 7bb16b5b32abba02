"""A whole scan in memory, labelled in one call: for the shell and for measurements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from napari_covseg.models.file import Model
from napari_covseg.predict.clean import finish_volume
from napari_covseg.predict.order import SliceOrder
from napari_covseg.predict.slices import predict_slices
from napari_covseg.scans.scan import Scan

Labels = npt.NDArray[np.uint8]


def predict_volume(
    scan: Scan,
    model: Model,
    *,
    batch: int | None = None,
    thresholds: dict[str, float] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notice: Callable[[str], None] = lambda text: None,
) -> tuple[Labels, Labels]:
    """Label every slice, then clean the whole in 3-D.

    Parameters
    ----------
    scan : Scan
    model : Model
    batch, thresholds
        See `predict_slices`.
    progress : callable
        Told (slices done, all slices).
    notice : callable
        Told in a sentence what a person should know.

    Returns
    -------
    lungs : ndarray of uint8, shape (z, y, x)
        1 right, 2 left, 3 side undetermined.
    lesions : ndarray of uint8, shape (z, y, x)
        Values of `labels.LESIONS`.

    Raises
    ------
    JobError
        If a single slice does not fit into the device's memory.
    """
    count = len(scan.voxels)
    lungs, lesions = np.zeros(scan.voxels.shape, np.uint8), np.zeros(scan.voxels.shape, np.uint8)
    order, done = SliceOrder(count), 0
    for predictions in predict_slices(
        scan.voxels.__getitem__,
        model,
        order,
        intensity=scan.intensity,
        spacing=scan.spacing[1:] if scan.spacing else None,
        batch=batch,
        thresholds=thresholds,
        notice=notice,
    ):
        for predicted in predictions:
            lungs[predicted.z], lesions[predicted.z] = predicted.lungs, predicted.lesions
        done += len(predictions)
        progress(done, count)
    for changed in finish_volume(
        lambda z: (lungs[z], lesions[z]),
        count,
        spacing=scan.spacing,
        intensity=scan.intensity,
        labels=model.card.lesions,
    ):
        if changed is not None:
            z, lungs[z], lesions[z] = changed
    return lungs, lesions
