"""One fold of one network: train, choose the thresholds, test, and keep what came of it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from napari_covseg.assess.folds import Fold
from napari_covseg.assess.scoring import choose_thresholds, labelled, patient_rows, probabilities
from napari_covseg.assess.stored_run import FORMAT, Protocol, Record, read_record, write_record
from napari_covseg.cases.lock import Lock, holder
from napari_covseg.errors import CaseError, JobError
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.train import TrainingProgress
from napari_covseg.learn.train_model import train_model
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import load_model
from napari_covseg.networks.size import count

_WORDS = ("title", "paper", "notes")
"""Of a recipe: they change nothing."""


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
        recipe = {key: value for key, value in asdict(self.recipe).items() if key not in _WORDS}
        values: Record = json.loads(json.dumps({"recipe": recipe}))
        return {**values, "budget": self.budget, "split": self.fold.checksum, "data": self.fold.data}


@dataclass(frozen=True)
class FoldTold:
    """What a job tells.

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


def run_folds(jobs: Sequence[FoldJob]) -> Iterator[FoldTold]:
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
            yield FoldTold(job, record=done[job.record])
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
            yield FoldTold(job, busy=who)
            continue
        try:
            if job.record.is_file():  # another process was quicker
                yield FoldTold(job, record=_stored(job))
            else:
                yield from _run(job)
        finally:
            lock.release()


def _run(job: FoldJob) -> Iterator[FoldTold]:
    out = job.weights / job.place.with_suffix(".safetensors")
    checkpoint = out.with_suffix(".checkpoint")
    card: ModelCard | None = None
    name = f"{job.recipe.name}-{job.protocol}-fold{job.fold.name}"
    for told in train_model(
        job.fold.slices,
        job.fold.split,
        out,
        job.recipe,
        name=name,
        device=job.device,
        budget=job.budget,
        half=job.half,
    ):
        if isinstance(told, TrainingProgress):
            yield FoldTold(job, progress=told)
        else:
            card = told
    assert card is not None  # the last
    record = _tested(job, out, card)
    write_record(job.record, record)
    checkpoint.unlink(missing_ok=True)
    yield FoldTold(job, record=record)


def _tested(job: FoldJob, path: Path, card: ModelCard) -> Record:
    """Measure the test patients; a recipe that scans for its threshold does so on the validation patients."""
    fold = job.fold
    model = load_model(path, job.device)
    thresholds = dict(card.thresholds)
    if job.recipe.threshold == "scan" and len(rows := fold.rows("validation")):
        kept_out = fold.slices.only(set(fold.split["validation"]))
        said = probabilities(model, kept_out)
        thresholds = choose_thresholds(said, kept_out.masks, fold.people[rows], kept_out.outputs)
    tested = fold.slices.only(set(fold.split["test"]))
    outputs = tested.outputs
    found = labelled(probabilities(model, tested), thresholds, outputs, job.recipe.min_pixels)
    parameters, multiply_adds = count(card.network["name"], card.network["settings"])
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
    default = {key: value for key, value in plain.items() if key not in _WORDS}
    made = {**record["asked"], "recipe": json.loads(json.dumps({**default, **record["asked"]["recipe"]}))}
    asked = job.asked()
    if different := [key for key in asked if made.get(key) != asked[key]]:
        what = "other slices" if set(different) & {"split", "data"} else "other settings"
        raise JobError(f"{job.record} was made with {what}: choose another folder, or delete it.")
    return record
