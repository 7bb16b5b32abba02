"""One slice again, with a person's scribbles as hints: into a run of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from napari_covseg.cases import Case, Run, Workspace
from napari_covseg.errors import ModelError
from napari_covseg.jobs.events import Event, Progress, RunStarted, SlicesDone
from napari_covseg.jobs.find_model import find_model
from napari_covseg.jobs.memory import loaded_model
from napari_covseg.jobs.requests import Refine
from napari_covseg.jobs.run import in_thread
from napari_covseg.labels import LESIONS, UNION, UNITED, joins
from napari_covseg.learn.corrections import check_whole
from napari_covseg.learn.refine import refine
from napari_covseg.learn.training_set import shrink
from napari_covseg.models.file import Model
from napari_covseg.models.forward import as_input, probabilities, restore
from napari_covseg.models.placement import Placement
from napari_covseg.predict.clean import clean_slice, guess_sides
from napari_covseg.predict.forward import thresholded
from napari_covseg.predict.stand import lay, stand

Mask = npt.NDArray[np.uint8]


def refine_slice(job: Refine) -> Iterator[Event]:
    """Label a slice again and write it as the only slice of a new run.

    Raises
    ------
    CaseError
        If the case cannot be read or its predictions not be written.
    ModelError
        If the model cannot be used, does not see whole slices, or has no output for the label.
    """

    def work() -> Run:
        workspace = Workspace.open(job.workspace, create=False)
        case = workspace.case(job.case)
        model = loaded_model(find_model(job.model, workspace), job.device)
        lungs, lesions = _refined(job, case, model)
        used = {"device": str(model.device), "refined": job.z, "label": job.label}
        run = case.begin_run(model.card.id, used, model.card.outputs, job.revision, probabilities=False)
        run.write_slice(job.z, lungs, lesions)
        run.finish()
        return run

    run = yield from in_thread(work, lambda: Progress(0, 1, "slices"))
    yield RunStarted(run.id)
    yield SlicesDone(run.id, (job.z,))


def _refined(job: Refine, case: Case, model: Model) -> tuple[Mask, Mask]:
    output = _output(job.label, model)
    outputs = model.card.outputs
    check_whole(model.card)
    appearance = case.appearance
    slice_ = stand(case.read_slice(job.z), appearance)
    image = model.preparation(slice_, case.intensity, equalised=appearance.equalised)
    with torch.no_grad():
        said = probabilities(model.network, as_input(image[None], model.device), outputs)
    size = model.preparation.size
    # scribbles turn with the slice; what is added around it holds none
    marks = replace(appearance, inverted=False)
    positive, negative = (_hints(stand(part, marks), size) for part in (job.positive, job.negative))
    channel = outputs.index(output)
    probability = said[0, channel].float().cpu().numpy()
    said[0, channel] = torch.from_numpy(refine(model, image, probability, positive, negative)).to(
        model.device
    )
    full = restore(said, Placement.whole(slice_.shape))
    lungs, lesions = (
        lay(part[0].cpu().numpy(), appearance) for part in thresholded(full, outputs, model.card.levels)
    )
    spacing = None if case.spacing is None else case.spacing[1:]
    lungs, lesions = clean_slice(lungs, lesions, model.card.lesions if "lungs" in outputs else (), spacing)
    if case.intensity == "HU":
        lungs = guess_sides(lungs)
    lesions[job.positive] = job.label
    lesions[job.negative & (lesions == job.label)] = 0
    return lungs, lesions


def _output(value: int, model: Model) -> str:
    """Return the output that a label belongs to, as in fine-tuning."""
    for label in LESIONS:
        if label.value == value:
            if label.name in model.card.outputs:
                return label.name
            if label.inside_lungs and UNION in model.card.outputs:
                return UNION
            if label.name == UNION and joins(model.card.outputs):
                return UNITED[0]  # whichever of them: both count for the union
    raise ModelError(f"The model {model.card.id} does not know label {value}: choose one of its own labels.")


def _hints(mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    """Shrink scribbles without losing thin ones."""
    side = max(mask.shape)
    if side <= size:
        return shrink(mask, size)
    wide = int(np.ceil(side / size))
    return shrink(cv2.dilate(mask.astype(np.uint8), np.ones((wide, wide), np.uint8)) > 0, size)
