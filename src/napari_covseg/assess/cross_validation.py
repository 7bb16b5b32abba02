"""Cross-validation: train each fold, choose the thresholds, test the patients kept out, store the figures."""

from __future__ import annotations

import datetime
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_covseg.assess.comparison import FORMAT, Protocol, Record, read_record, write_record
from napari_covseg.assess.folds import Fold
from napari_covseg.cases.lock import Lock, holder
from napari_covseg.errors import CaseError, JobError, ModelError
from napari_covseg.learn.recipe import WORDS, Recipe
from napari_covseg.learn.score import Probabilities, choose_thresholds, least, probabilities
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.learn.train import TrainingProgress
from napari_covseg.learn.train_model import cropped, lungs_of, train_model
from napari_covseg.metrics.overlap import Counts, count, overlaps
from napari_covseg.metrics.surface import joined, surfaces
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import Model, load_model
from napari_covseg.models.forward import restore
from napari_covseg.networks import size

Found = npt.NDArray[np.bool_]
Truth = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
"""1 labelled, 0 not, `UNKNOWN` unknown: see `learn.slices.LabelledSlices.masks`."""

TOLERANCE = 2.0
"""Of the surface Dice, in pixels."""


@dataclass(frozen=True, eq=False)
class FoldJob:
    """What is to be trained and tested.

    Attributes
    ----------
    recipe : Recipe
        At the size that is wanted, and shortened if the steps were given.
    protocol : {"patient", "slice", "source"}
    fold : Fold
    folds : tuple of str
        Names of all folds.
    runs, weights : Path
        Folders of what is kept: the figures, and the models and checkpoints.
    device : str
    budget : float, optional
        Seconds that the training may take.
    half : bool, optional
        As for `learn.train_model.train_model`.
    lungs_from : Path, optional
        The model that finds the lungs which slices are cropped to, see `folds.lungs_model`.
    """

    recipe: Recipe
    protocol: Protocol
    fold: Fold
    folds: tuple[str, ...]
    runs: Path
    weights: Path
    device: str = "cpu"
    budget: float | None = None
    half: bool | None = None
    lungs_from: Path | None = None

    @property
    def place(self) -> Path:
        """Where the job's files lie in either folder, without ending."""
        return Path(self.protocol) / self.recipe.name / f"fold{self.fold.name}"

    @property
    def record(self) -> Path:
        """The file with the figures."""
        return self.runs / self.place.with_suffix(".json")

    def asked(self) -> Record:
        """Return what decides about the result, as JSON holds it."""
        recipe = {key: value for key, value in asdict(self.recipe).items() if key not in WORDS}
        values: Record = json.loads(json.dumps({"recipe": recipe}))
        values |= {"budget": self.budget, "split": self.fold.checksum, "data": self.fold.data}
        if self.lungs_from is not None:
            values["lungs_from"] = zlib.crc32(self.lungs_from.read_bytes())
        return values


@dataclass(frozen=True)
class FoldProgress:
    """How far a job is.

    Attributes
    ----------
    job : FoldJob
    progress : TrainingProgress, optional
        While it trains.
    record : dict, optional
        When it is done, or was before.
    busy : str
        Who else is at it; the job is left to them.
    """

    job: FoldJob
    progress: TrainingProgress | None = None
    record: Record | None = None
    busy: str = ""


def run_folds(jobs: Sequence[FoldJob]) -> Iterator[FoldProgress]:
    """Do all jobs, one after the other; what is done is read, what another process is at is left to it.

    A job that was interrupted goes on from its checkpoint.

    Raises
    ------
    JobError
        If a stored run has other settings, or cannot be read or written.
    ModelError
        As for `learn.train_model.train_model`.
    """
    done = {job.record: _stored(job) for job in jobs if job.record.is_file()}  # refused before hours of work
    for job in jobs:
        if job.record in done:
            yield FoldProgress(job, record=done[job.record])
            continue
        path = job.weights / job.place.with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = Lock(path, str(path))
        except OSError as error:
            raise JobError(
                f"{path.parent} cannot be made ({error.strerror}): name another folder."
            ) from error
        except CaseError:
            if not (who := holder(path)):
                raise
            yield FoldProgress(job, busy=who)
            continue
        try:
            if job.record.is_file():  # another process was quicker
                yield FoldProgress(job, record=_stored(job))
            else:
                yield from _run(job)
        finally:
            lock.release()


def _run(job: FoldJob) -> Iterator[FoldProgress]:
    out = job.weights / job.place.with_suffix(".safetensors")
    checkpoint = out.with_suffix(".checkpoint")
    card: ModelCard | None = None
    name = f"{job.recipe.name}-{job.protocol}-fold{job.fold.name}"
    for event in train_model(
        job.fold.slices,
        job.fold.split,
        out,
        job.recipe,
        name=name,
        device=job.device,
        budget=job.budget,
        half=job.half,
        lungs_from=load_model(job.lungs_from, job.device) if job.lungs_from else None,
    ):
        if isinstance(event, TrainingProgress):
            yield FoldProgress(job, progress=event)
        else:
            card = event
    assert card is not None  # the last
    record = _tested(job, out, card)
    write_record(job.record, record)
    checkpoint.unlink(missing_ok=True)
    yield FoldProgress(job, record=record)


def _tested(job: FoldJob, path: Path, card: ModelCard) -> Record:
    """Measure the test patients; a recipe that scans for its threshold does so on the validation patients."""
    fold = job.fold
    model = load_model(path, job.device)
    finder = load_model(job.lungs_from, job.device) if job.lungs_from else None
    thresholds = dict(card.thresholds)
    if job.recipe.threshold == "scan" and len(rows := fold.rows("validation")):
        kept_out = fold.slices.only(set(fold.split["validation"]))
        kept_out = replace(kept_out, patients=fold.people[rows])
        thresholds = choose_thresholds(probabilities_on_grid(model, kept_out, finder), kept_out)
    tested = fold.slices.only(set(fold.split["test"]))
    outputs = tested.outputs
    probability = probabilities_on_grid(model, tested, finder)
    found = labelled(probability, thresholds, outputs, job.recipe.min_pixels)
    parameters, multiply_adds = size.count(card.network["name"], card.network["settings"])
    asked = job.asked()
    settings = json.loads(json.dumps(card.recipe))
    shortened = {key: settings[key] for key, value in asked["recipe"].items() if settings[key] != value}
    return {
        "format": FORMAT,
        "recipe": job.recipe.name,
        "protocol": job.protocol,
        "fold": fold.name,
        "folds": list(job.folds),
        "network": card.network,
        "parameters": parameters,
        "gmac_256": round(multiply_adds, 3),
        "size": card.preparation["size"],
        "batch": job.recipe.batch,
        **card.recipe["trained"],
        "version": version("napari-covseg"),
        "date": datetime.date.today().isoformat(),
        "asked": asked,
        "lungs_from": finder.card.id if finder else None,
        "shortened": shortened,
        "split": _told(fold),
        "thresholds": thresholds,
        "min_pixels": job.recipe.min_pixels,
        "grid": tested.masks.shape[-1],
        "outputs": list(outputs),
        "rows": patient_rows(found, tested.masks, fold.people[fold.rows("test")], outputs),
    }


def _told(fold: Fold) -> Record:
    """Say who was in which part, and how many slices that were."""
    parts = {
        part: {
            "patients": sorted(set(fold.people[fold.rows(part)].tolist())),
            "slices": int(np.size(fold.rows(part))),
        }
        for part in fold.split
    }
    return {**parts, "checksum": fold.checksum}


def _stored(job: FoldJob) -> Record:
    """Read what was kept, or say why it is not this job's."""
    record = read_record(job.record)
    plain = asdict(Recipe(job.recipe.name, job.recipe.network))
    default = {key: value for key, value in plain.items() if key not in WORDS}
    made = {**record["asked"], "recipe": json.loads(json.dumps({**default, **record["asked"]["recipe"]}))}
    asked = job.asked()
    if different := [key for key in {*asked, *made} if made.get(key) != asked.get(key)]:
        what = "other slices" if set(different) & {"split", "data"} else "other settings"
        raise JobError(f"{job.record} was made with {what}: choose another folder, or delete it.")
    return record


def probabilities_on_grid(
    model: Model, slices: LabelledSlices, lungs_from: Model | None = None
) -> Probabilities:
    """Return what a model says of slices, on the slices' own grid.

    The network sees them at its own size and as its own preparation makes them. One that crops to
    the lungs sees those that `lungs_from` finds, never those of the truth: outside of the crop, and on
    slices without lung, it says nothing, which counts as it would of a new scan.

    Returns
    -------
    ndarray of uint8, shape (n, len(slices.outputs), size, size)
        255 is certain.

    Raises
    ------
    ModelError
        If the lungs are needed, and nobody finds them.
    """
    size, batch = slices.images.shape[-1], 4 if model.device.type == "cpu" else 32
    if model.preparation.crop == "none":
        images = slices.prepared(model.preparation).images
        return probabilities(model.network, images, slices.outputs, model.device, size=size, batch=batch)
    if lungs_from is None:
        raise ModelError(
            f"The model {model.card.id} sees slices cropped to the lungs: name a model that finds them."
        )
    places = [model.preparation.place(lungs.shape, lungs) for lungs in lungs_of(lungs_from, slices)]
    images = cropped(slices, places, model.preparation).images
    seen = probabilities(model.network, images, slices.outputs, model.device, batch=batch)
    found = np.zeros((len(slices), len(slices.outputs), size, size), np.uint8)
    for row, place in enumerate(places):
        if place is not None:
            found[row] = (
                restore(torch.from_numpy(seen[row : row + 1]).float(), place)[0].round().byte().numpy()
            )
    return found


def labelled(
    probability: Probabilities, thresholds: dict[str, float], outputs: Sequence[str], min_pixels: int = 0
) -> Found:
    """Return where probabilities reach the thresholds, and nothing else: no cleaning.

    A slice with fewer pixels of a finding than `min_pixels` (of a recipe) has none of it.
    """
    levels = np.array([least(thresholds[name]) for name in outputs])
    found = np.asarray(probability >= levels[:, None, None], np.bool_)
    for channel, name in enumerate(outputs):
        if min_pixels and name != "lungs":
            few = np.count_nonzero(found[:, channel], (1, 2)) < min_pixels
            found[few, channel] = False
    return found


def patient_rows(
    found: Found, truth: Truth, people: npt.NDArray[np.str_], outputs: Sequence[str]
) -> list[dict[str, Any]]:
    """Measure every patient.

    Parameters
    ----------
    found : ndarray of bool, shape (n, len(outputs), y, x)
    truth : ndarray of uint8 or bool, same shape
        1 labelled, 0 not, `UNKNOWN` unknown: such pixels are left out.
    people : ndarray of str, shape (n,)
    outputs : sequence of str

    Returns
    -------
    list of dict
        ``patient``, ``slices``, and for each output what `_measured` returns: None for a patient of
        whom nobody has probability where the output is.
    """
    rows = []
    for patient in sorted(set(people.tolist())):
        mine = people == patient
        row: dict[str, Any] = {"patient": patient, "slices": int(mine.sum())}
        for channel, name in enumerate(outputs):
            row[name] = _measured(found[mine, channel], truth[mine, channel])
        rows.append(row)
    return rows


def _measured(found: Found, truth: Truth) -> dict[str, Any] | None:
    """Return one output of one patient as JSON holds it; null is a figure without a value.

    Overlap and distances are those of all slices at once, distances slice by slice in pixels and
    only of slices that are known whole; ``alone`` counts the slices that they leave out because one
    mask is empty and the other is not. ``by_slice`` has true positives, false positives and false
    negatives of each slice, and the true negatives as well where part of the slice is unknown; null
    if nothing of it is known. ``assd_by_slice`` has its distance. Of an output that a patient does not
    have, only what is painted wrongly can be probability: see `comparison.Network.by_patient`.
    """
    known = truth != UNKNOWN
    if not known.any():
        return None
    there = truth == 1
    whole, part = known.all((1, 2)), known.any((1, 2))
    apart = [
        surfaces(a, b, (1.0, 1.0)) if all_of_it else None
        for a, b, all_of_it in zip(found, there, whole, strict=True)
    ]
    together = joined([surface for surface in apart if surface is not None])
    counts = [count(a[k], b[k]) for a, b, k in zip(found, there, known, strict=True)]
    values = overlaps(sum(counts, Counts(0, 0, 0, 0)))
    values |= {"assd": together.assd, "hd95": together.hd95}
    values["surface_dice"] = together.dice(TOLERANCE, empty=math.nan)
    if not there.any():
        values |= dict.fromkeys(("dice", "jaccard", "f1", "surface_dice"), math.nan)
    by_slice = []
    for c, all_of_it, some in zip(counts, whole, part, strict=True):
        numbers = [c.tp, c.fp, c.fn] if all_of_it else [c.tp, c.fp, c.fn, c.tn]
        by_slice.append(numbers if some else None)
    return {
        **{name: _short(value) for name, value in values.items()},
        "alone": together.alone,
        "by_slice": by_slice,
        "assd_by_slice": [None if surface is None else _short(surface.assd, 2) for surface in apart],
    }


def _short(value: float, digits: int = 4) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
