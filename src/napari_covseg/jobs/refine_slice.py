"""One slice again, with a person's scribbles as hints: into a prediction of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.case import Case
from napari_covseg.cases.prediction import Prediction
from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.events import Event, PredictionStarted, Progress, SlicesDone
from napari_covseg.jobs.memory import loaded_ensemble
from napari_covseg.jobs.predict_case import appearance_of
from napari_covseg.jobs.requests import Refine
from napari_covseg.jobs.steps import Control, in_thread
from napari_covseg.learn.corrections import check_whole
from napari_covseg.models.preparation import reorient
from napari_covseg.predict.clean import UNKNOWN_PIXEL_MM
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.labelling import Labeller
from napari_covseg.predict.refine import output_of, refine_with
from napari_covseg.predict.volume import with_sides

Mask = npt.NDArray[np.uint8]


def refine_slice(job: Refine, control: Control) -> Iterator[Event]:
    """Label a slice again and write it as the only slice of a new prediction.

    Raises
    ------
    CaseError
        If the case cannot be read or its predictions not be written.
    ModelError
        If the model cannot be used, does not see whole slices, or has no output for the label.
    """

    def work() -> Prediction:
        workspace = Workspace.open(job.workspace, create=False)
        case = workspace.case(job.case)
        ensemble = loaded_ensemble(job.model, job.options, job.device, workspace)
        lungs, lesions = _refined(job, case, ensemble)
        used = {"device": str(ensemble.device), "refined": job.z, "label": job.label}
        outputs = ensemble.card.outputs
        prediction = case.begin_prediction(ensemble.card.id, used, outputs, job.revision, probabilities=False)
        prediction.write_slice(job.z, lungs, lesions)
        prediction.finish()
        return prediction

    prediction = yield from in_thread(work, lambda: Progress(0, 1, "slices"))
    yield PredictionStarted(prediction.id)
    yield SlicesDone(prediction.id, (job.z,))


def _refined(job: Refine, case: Case, ensemble: Ensemble) -> tuple[Mask, Mask]:
    for model in ensemble.models:
        check_whole(model.card)
    output = output_of(job.label, ensemble.models[0])
    appearance = appearance_of(case, job.options)
    spacing = None if case.spacing is None else case.spacing[1:]
    thresholds, smallest = job.options.levels(ensemble.card), job.options.min_pixels
    labeller = Labeller(case.read_slice, ensemble, appearance, spacing, thresholds, smallest)
    # scribbles turn with the slice; what is added around it holds none
    turned = replace(appearance, inverted=False)
    slices = labeller.prepare([job.z])
    hints = refine_with(output, *(reorient(part, turned, around=0) for part in (job.positive, job.negative)))
    (predicted,) = labeller.label(slices, labeller.infer(slices, hints))
    lungs, lesions = predicted.lungs, predicted.lesions
    known = case.read_labels("lungs", job.z)
    if case.intensity == "HU" and known.any():  # sides and strays are known from all slices
        pixel = spacing or (UNKNOWN_PIXEL_MM, UNKNOWN_PIXEL_MM)
        lungs, lesions = with_sides(lungs, lesions, known, ensemble.card.lesions, pixel)
    lesions = lesions.copy()
    lesions[job.positive] = job.label
    lesions[job.negative & (lesions == job.label)] = 0
    return lungs, lesions
