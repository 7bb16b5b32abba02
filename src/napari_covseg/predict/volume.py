"""A whole scan in memory, labelled in one call: for the shell and for measurements."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import chain

import numpy as np
import numpy.typing as npt

from napari_covseg.models.file import Model
from napari_covseg.predict.clean import finish_volume
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.order import SliceOrder
from napari_covseg.predict.slices import predict_slices
from napari_covseg.predict.small import drop_small_findings
from napari_covseg.scans.appearance import Appearance, look
from napari_covseg.scans.scan import Scan

Labels = npt.NDArray[np.uint8]


def predict_volume(
    scan: Scan,
    model: Model | Ensemble,
    *,
    batch: int | None = None,
    appearance: Appearance | None = None,
    thresholds: dict[str, float] | None = None,
    min_pixels: int = 0,
    min_ml: float = 0.0,
    uncertainty: Labels | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notice: Callable[[str], None] = lambda text: None,
) -> tuple[Labels, Labels]:
    """Label every slice, then clean the whole in 3-D.

    Parameters
    ----------
    scan : Scan
    model : Model or Ensemble
    appearance : Appearance, optional
        What the scan looks like; by default it is looked at.
    batch, thresholds, min_pixels
        See `predict_slices`.
    min_ml : float
        Findings of less are dropped in 3-D; only where the spacing is known.
    uncertainty : ndarray of uint8, shape (z, y, x), optional
        Where to write how unsure the ensemble is, if it says so.
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
    batches = predict_slices(
        scan.voxels.__getitem__,
        model,
        order,
        appearance=appearance or look(scan.voxels, scan.intensity),
        spacing=scan.spacing[1:] if scan.spacing else None,
        batch=batch,
        thresholds=thresholds,
        min_pixels=min_pixels,
        notice=notice,
    )
    with closing(batches):
        for predictions in batches:
            for predicted in predictions:
                lungs[predicted.z], lesions[predicted.z] = predicted.lungs, predicted.lesions
                if uncertainty is not None and predicted.uncertainty is not None:
                    uncertainty[predicted.z] = predicted.uncertainty
            done += len(predictions)
            progress(done, count)

    def read(z: int) -> tuple[Labels, Labels]:
        return lungs[z], lesions[z]

    labels = model.card.lesions
    passes = [finish_volume(read, count, spacing=scan.spacing, intensity=scan.intensity, labels=labels)]
    if min_ml > 0 and scan.spacing is not None:
        passes.append(drop_small_findings(read, count, spacing=scan.spacing, min_ml=min_ml))
    for changed in chain.from_iterable(passes):
        if changed is not None:
            z, lungs[z], lesions[z] = changed
    return lungs, lesions
