"""What can be asked for: frozen dataclasses that pickle, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_covseg.predict.options import PLAIN, PredictOptions

if TYPE_CHECKING:  # arrays come from those who have loaded NumPy
    import numpy as np
    import numpy.typing as npt

    from napari_covseg.scans import Values


@dataclass(frozen=True)
class Import:
    """Read a scan and keep it as a case.

    Attributes
    ----------
    workspace : str
        Folder of the workspace.
    path : str
        File or folder that `scans.read_scan` understands.
    series : str, optional
        Series UID to take from a DICOM folder with several.
    seen_as : tuple of (str, value)
        What a person says of how the scan looks, see `scans.appearance.Appearance.overruled`.
    values : str, optional
        What a person says that its values are, see `scans.read_scan`.
    anew : bool
        Make a case of it also if the workspace has one of the same scan.
    """

    workspace: str
    path: str
    series: str | None = None
    seen_as: tuple[tuple[str, bool | int | str | None], ...] = ()
    values: Values | None = None
    anew: bool = True


@dataclass(frozen=True)
class Predict:
    """Label a case with a model; the result is one of the case's predictions.

    Attributes
    ----------
    workspace, case : str
        Folder of the workspace and id of the case.
    model : str
        Id of a version in the workspace, name of a model in the catalogue, or path of a model file.
    first_slice : int
        Slice to start at; work goes outwards from it.
    revision : int
        The case's revision that the asker saw.
    device : str
        ``"auto"`` (cuda, then mps, then cpu) or a torch device.
    batch : int, optional
        Slices per forward pass; None lets the device decide.
    probabilities : bool
        Whether to keep the class probabilities, uint8 (class, z, y, x).
    guided : bool
        Whether corrected and accepted slices guide those around them.
    options : PredictOptions
    """

    workspace: str
    case: str
    model: str
    first_slice: int
    revision: int = 0
    device: str = "auto"
    batch: int | None = None
    probabilities: bool = False
    guided: bool = True
    options: PredictOptions = PLAIN


@dataclass(frozen=True)
class PredictFile:
    """Label a scan without a workspace, into files in the scan's own geometry.

    Attributes
    ----------
    path : str
        File or folder that `scans.read_scan` understands.
    model : str
        As in `Predict`.
    lesions_out, lungs_out, uncertainty_out : str, optional
        Files to write, at least one.
    series : str, optional
        Series UID to take from a DICOM folder with several.
    device, batch, options
        As in `Predict`; uncertainty is asked for by its file.
    values : str, optional
        What a person says that the scan's values are, see `scans.read_scan`.
    """

    path: str
    model: str
    lesions_out: str | None = None
    lungs_out: str | None = None
    uncertainty_out: str | None = None
    series: str | None = None
    device: str = "auto"
    batch: int | None = None
    options: PredictOptions = PLAIN
    values: Values | None = None


@dataclass(frozen=True)
class WarmUp:
    """Load what a prediction needs, so that its first slice comes at once.

    Attributes
    ----------
    model : str, optional
        Model to load as well; None only imports the libraries.
    device : str
        As in `Predict`.
    workspace : str, optional
        Where the model is looked for first.
    """

    model: str | None = None
    device: str = "auto"
    workspace: str | None = None


@dataclass(frozen=True)
class Finetune:
    """Let a model learn from corrected and accepted slices; the result is a proposed version.

    It takes turns with other jobs after every step. Cancelled, it proposes its best so far.

    Attributes
    ----------
    workspace : str
        Folder of the workspace.
    cases : tuple of str
        Ids of the cases to learn from.
    model : str
        As in `Predict`.
    seconds : float, optional
        Time for the steps; None sets no limit.
    steps : int, optional
        Optimiser steps at most; None takes the usual number, more where more slices are corrected.
    device : str
        As in `Predict`.
    seed : int
        Of slices and augmentation.
    """

    workspace: str
    cases: tuple[str, ...]
    model: str
    seconds: float | None = None
    steps: int | None = None
    device: str = "auto"
    seed: int = 0


REFINE_PRIORITY = 100
"""A person waits for it, whatever else is going on."""


@dataclass(frozen=True, eq=False)
class Refine:
    """Label one slice again, with a person's scribbles as hints; the result is a prediction of this slice.

    Submit it with `REFINE_PRIORITY`.

    Attributes
    ----------
    workspace, case, model : str
        As in `Predict`.
    z : int
    label : int
        Value of the lesion label that the scribbles are about.
    positive, negative : ndarray of bool, shape (y, x)
        Where the person says that the label is, and is not.
    revision : int
        As in `Predict`.
    device : str
        As in `Predict`.
    options : PredictOptions
        As in `Predict`; the smallest finding in ml does not count, which needs all slices.
    """

    workspace: str
    case: str
    model: str
    z: int
    label: int
    positive: npt.NDArray[np.bool_]
    negative: npt.NDArray[np.bool_]
    revision: int = 0
    device: str = "auto"
    options: PredictOptions = PLAIN


@dataclass(frozen=True)
class Recognise:
    """Have models name what a case shows, slice by slice; each answer is one of the case's recognitions.

    Attributes
    ----------
    workspace, case : str
        As in `Predict`.
    models : tuple of str
        Names of models in the catalogue that recognise or name manifestations, or paths of model files. Those
        that say nothing of such a scan are not asked, and say why.
    first_slice, revision, device : int, int, str
        As in `Predict`.
    heat_maps : bool
        Whether to keep where in a slice each answer comes from.
    """

    workspace: str
    case: str
    models: tuple[str, ...]
    first_slice: int
    revision: int = 0
    device: str = "auto"
    heat_maps: bool = True


@dataclass(frozen=True)
class RecogniseFile:
    """Have models name what a scan shows that is in no workspace.

    Attributes
    ----------
    path, series, values : str
        As in `PredictFile`.
    models : tuple of str
        As in `Recognise`; by default the first of each task that has learned from such scans.
    heat_map : str, optional
        PNG file to draw the first model's heat map into, beside its slice.
    device : str
        As in `Predict`.
    seen_as : tuple of (str, value)
        As in `Import`.
    """

    path: str
    models: tuple[str, ...] = ()
    heat_map: str | None = None
    series: str | None = None
    values: Values | None = None
    device: str = "auto"
    seen_as: tuple[tuple[str, bool | int | str | None], ...] = ()


Request = Import | Predict | PredictFile | WarmUp | Finetune | Refine | Recognise | RecogniseFile
