"""A scan in memory or in a file, labelled in one call, without a workspace."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_covseg.jobs.memory import loaded_ensemble
from napari_covseg.jobs.predict_case import approved, check_measurable
from napari_covseg.labels import GROUPS
from napari_covseg.models.catalogue import DEFAULT
from napari_covseg.predict.options import PLAIN, PredictOptions
from napari_covseg.predict.volume import predict_volume
from napari_covseg.scans import Scan, Values, read_scan, write_labels
from napari_covseg.scans.stated import look_at

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A labelled scan; research use, not for diagnosis.

    Attributes
    ----------
    scan : Scan
        With spacing, affine and voxels (z, y, x).
    lungs : ndarray of uint8, shape (z, y, x)
        1 right, 2 left, 3 side undetermined.
    lesions : ndarray of uint8, shape (z, y, x)
        Values of `labels.LESIONS`.
    outputs : tuple of str
        What the model has outputs for.
    probabilities : ndarray of uint8, shape (z, output, y, x), or None
        255 is certain; in the order of `outputs`.
    uncertainty : ndarray of uint8, shape (z, y, x), or None
        See `predict.ensemble.Ensemble.measures`.
    notes : tuple of str
        What a person should know, a sentence each.
    """

    scan: Scan
    lungs: Labels
    lesions: Labels
    outputs: tuple[str, ...]
    probabilities: Labels | None
    uncertainty: Labels | None
    notes: tuple[str, ...]

    def write(
        self, path: str | os.PathLike[str], what: Literal["lungs", "lesions", "uncertainty"] = "lesions"
    ) -> None:
        """Write labels in the grid of the file that the scan was read from; its ending chooses the format.

        Raises
        ------
        ScanError
            If the file cannot be written.
        ValueError
            If the uncertainty is asked for and was not kept.
        """
        values = getattr(self, what)
        if values is None:
            raise ValueError(f"The {what} was not kept: ask for it in the options.")
        write_labels(values, self.scan, path, () if what == "uncertainty" else GROUPS[what])


def segment(
    scan: Scan | str | os.PathLike[str],
    model: str | os.PathLike[str] = DEFAULT,
    *,
    device: str = "auto",
    options: PredictOptions = PLAIN,
    probabilities: bool = False,
    series: str | None = None,
    values: Values | None = None,
    batch: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notice: Callable[[str], None] = lambda text: None,
) -> Segmentation:
    """Label lungs and lesions of a chest CT.

    Parameters
    ----------
    scan : Scan or path
        What `read_scan` returns or reads: a DICOM folder, NIfTI, NRRD, MetaImage, pictures.
    model : str or path
        Name of a model of the package, or a model file.
    device : str
        ``"auto"`` (CUDA, then Apple's MPS, then the CPU) or a torch device.
    options : PredictOptions
        Thresholds, test-time augmentation, smallest findings, further models, uncertainty.
    probabilities : bool
        Also keep the probabilities.
    series : str, optional
        Series UID to take from a DICOM folder with several.
    values : {"HU", "HU+1024", "grey"}, optional
        What the values of the file are, see `read_scan`.
    batch : int, optional
        Slices per forward pass; by default what suits the device.
    progress : callable
        Called with (slices done, all slices), from the calling thread.
    notice : callable
        Called with a sentence as soon as there is something that a person should know.

    Returns
    -------
    Segmentation

    Raises
    ------
    ScanError
        If the scan cannot be read.
    ModelError
        If the model cannot be used, or the device is not there.
    JobError
        If it is no chest CT (see ``options.anyway``), if one slice does not fit into memory, or if
        findings are to be measured in ml where the size of a voxel is not known.
    """
    ensemble = loaded_ensemble(str(model), options, device)
    scan = scan if isinstance(scan, Scan) else read_scan(scan, series=series, values=values)
    check_measurable(options, scan.spacing, scan.name)
    appearance = approved(look_at(scan), options, scan.name)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        notice(text)

    for text in (*scan.notes, *appearance.remarks()):
        note(text)
    count, height, width = scan.voxels.shape
    outputs = ensemble.card.outputs
    unsure = np.zeros(scan.voxels.shape, np.uint8) if options.uncertainty else None
    likely = np.zeros((count, len(outputs), height, width), np.uint8) if probabilities else None
    lungs, lesions = predict_volume(
        scan,
        ensemble,
        batch=batch,
        appearance=appearance,
        thresholds=options.levels(ensemble.card),
        min_pixels=options.min_pixels,
        min_ml=options.min_ml,
        uncertainty=unsure,
        probabilities=likely,
        progress=progress,
        notice=note,
    )
    return Segmentation(scan, lungs, lesions, outputs, likely, unsure, tuple(notes))
