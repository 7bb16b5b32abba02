"""Human effort: correct slices, fine-tune where the interface would offer it, look at all the others."""

from __future__ import annotations

import json
import multiprocessing
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from napari_covseg.assess.comparison import Record
from napari_covseg.assess.patients import Assessed, Patient
from napari_covseg.errors import JobError
from napari_covseg.files import write_text
from napari_covseg.learn.corrections import Side, choose_sides, split
from napari_covseg.learn.finetune import FinetuneResult, FinetuneSettings, finetune
from napari_covseg.learn.regression import MOST_FORGOTTEN, farthest
from napari_covseg.learn.score import model_probabilities
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices, SliceId
from napari_covseg.masks.parts import numbered, outlines
from napari_covseg.metrics import dice
from napari_covseg.models.file import Model, load_model
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.guide import Guide, Motion, likeness
from napari_covseg.predict.labelling import Labeller, SlicePrediction
from napari_covseg.predict.slices import SliceOrder, predict_slices
from napari_covseg.review.order import Strategy, next_slice, slice_features
from napari_covseg.scans.appearance import PREPARED

Mask = npt.NDArray[np.uint8]

_SIMPLIFY_PX = 1.0
"""How far a simplified outline may lie from the outline itself."""
_FAR_PX = 2.0
"""A vertex farther than this from the labels' outline has to be drawn."""
CONDITIONS = ("none", "guide", "memory", "no-memory")
"""Nothing but the corrections; corrected slices guide those around them; the model learns, too; and
learns without the memory against forgetting."""


@dataclass(frozen=True)
class Protocol:
    """How the simulated radiologist works.

    Attributes
    ----------
    strategy : str
        Of `review.order`: which slice comes next.
    condition : {"none", "guide", "memory", "no-memory"}
        See `CONDITIONS`.
    every : int
        Corrected slices from one fine-tuning to the next: what the interface offers.
    goal : float
        Lesion Dice over the slices that are not corrected at which the work is done.
    most : int, optional
        Slices that are corrected at most.
    seed : int
        Of the fine-tuning.
    restart : bool
        Whether each fine-tuning begins with the first model again instead of the current version.
    settings : FinetuneSettings
    """

    strategy: Strategy = "position"
    condition: str = "memory"
    every: int = 5
    goal: float = 0.90
    most: int | None = None
    seed: int = 0
    restart: bool = False
    settings: FinetuneSettings = field(default_factory=FinetuneSettings)


@dataclass(frozen=True)
class Point:
    """Where the work stands.

    Attributes
    ----------
    corrected : int
        Slices, with those held out to check the fine-tuning.
    strokes, clicks : int
        So far.
    dice : float
        Lesions, pooled over the slices that are not corrected.
    unguided : float
        The same for what the current model says alone, without corrected slices around.
    versions : int
        Fine-tunings so far whose weights were kept.
    """

    corrected: int
    strokes: int
    clicks: int
    dice: float
    unguided: float
    versions: int = 0


@dataclass(frozen=True)
class Round:
    """One fine-tuning.

    Attributes
    ----------
    corrected : int
        Slices so far.
    held_out : int
        Those among them that only check the new weights.
    step : int
        Of the weights that were kept; 0 if those before were not bettered.
    seconds : float
        For the steps; without predicting again.
    forgotten : float
        Lesion Dice on slices of patients that the first model learned from: what it was
        with the first model, less what it is now.
    unseen : float
        The same on slices of other patients that the first model has not learned from.
    """

    corrected: int
    held_out: int
    step: int
    seconds: float
    forgotten: float
    unseen: float = float("nan")


@dataclass(frozen=True, eq=False)
class _Labelled:
    """What a model said of every slice."""

    lungs: Mask
    lesions: Mask
    unguided: Mask
    probability: npt.NDArray[np.uint8]


def simulate(assessed: Assessed, model: Model, protocol: Protocol) -> Iterator[Point | Round]:
    """Correct one patient until the goal is reached or the slices run out.

    The model gets a slice's truth only once the radiologist has corrected the slice, and
    what counts is the labels of all other slices.

    Yields
    ------
    Point
        Before the first slice, after every slice, and after every fine-tuning.
    Round
        After every fine-tuning, before its point.
    """
    patient, radiologist = assessed.patient, Radiologist(assessed.patient.lesions)
    learner = _Learner(assessed, model, protocol)
    labelled = _predict(model, patient.images, {})
    features = slice_features(labelled.probability, labelled.lungs)
    point = _point(radiologist, labelled, 0)
    yield point
    most = len(radiologist) - 1 if protocol.most is None else min(protocol.most, len(radiologist) - 1)
    while point.dice < protocol.goal and point.corrected < most:
        z = next_slice(protocol.strategy, features, radiologist.corrected)
        radiologist.correct(z, labelled.lesions[z])
        learner.lungs[z] = labelled.lungs[z]
        point = _point(radiologist, labelled, learner.versions)
        yield point
        if protocol.condition != "none" and point.corrected % protocol.every == 0:
            if protocol.condition != "guide":
                yield learner.learn(radiologist.corrected)
            labelled = _predict(learner.model, patient.images, radiologist.corrected)
            features = slice_features(labelled.probability, labelled.lungs)
            point = _point(radiologist, labelled, learner.versions)
            yield point


def _point(radiologist: Radiologist, labelled: _Labelled, versions: int) -> Point:
    cost: Cost = radiologist.cost
    marks = radiologist.mark(labelled.lesions), radiologist.mark(labelled.unguided)
    return Point(len(radiologist.corrected), cost.strokes, cost.clicks, *marks, versions)


def _predict(model: Model, images: npt.NDArray[np.uint8], corrected: dict[int, Mask]) -> _Labelled:
    """Label the slices as the interface does; corrected ones stay as they are."""
    slices = images.astype(np.int16)
    lungs, lesions, unguided, probability = (np.zeros(images.shape, np.uint8) for _ in range(4))
    predicted: list[SlicePrediction] = []
    found = [channel for channel, name in enumerate(model.card.outputs) if name != "lungs"]
    order = SliceOrder(len(images))
    labelled = predict_slices(slices.__getitem__, model, order, appearance=PREPARED, probabilities=True)
    for predictions in labelled:
        predicted += predictions
    for slice_ in predicted:
        assert slice_.probabilities is not None  # asked for
        lungs[slice_.z], unguided[slice_.z] = slice_.lungs, slice_.lesions
        probability[slice_.z] = slice_.probabilities[found].max(0)
    motion = Motion(images.__getitem__, "grey")
    guide = Guide(corrected, model.card, likeness(unguided), motion=motion)
    labeller = Labeller(slices.__getitem__, Ensemble((model,)), PREPARED, None, {})
    for slice_ in predicted:
        lesions[slice_.z] = labeller.guided(slice_, guide).lesions
    for z, truth in corrected.items():
        lesions[z], probability[z] = truth, (truth > 0) * np.uint8(255)
    return _Labelled(lungs, lesions, unguided, probability)


class _Learner:
    """Keeps the versions of the model, and what each has learned from."""

    def __init__(self, assessed: Assessed, model: Model, protocol: Protocol) -> None:
        self.model, self._first, self.versions = model, model, 0
        self.lungs: dict[int, Mask] = {}
        """As they were labelled when the slice was corrected: a person corrects the lesions only."""
        self._patient, self._protocol = assessed.patient, protocol
        self._others = assessed.known, assessed.unseen
        self._before = [remembered(model, some) for some in self._others]
        self._accepted, self._on_accepted = assessed.accepted, remembered(model, assessed.accepted)
        self._sides: dict[SliceId, Side] = {}
        self._memory: LabelledSlices | None = None
        if protocol.condition == "memory" and len(assessed.memory):
            soft = model_probabilities(model, assessed.memory) / np.float32(255)
            names = np.full(len(assessed.memory), "memory")
            self._memory = LabelledSlices(assessed.memory, soft, names, model.card.outputs)

    def learn(self, corrected: dict[int, Mask]) -> Round:
        """Fine-tune the current version on the slices corrected so far; the held-out ones decide."""
        slices = self._slices(corrected)
        settings = self._protocol.settings
        self._sides = choose_sides(slices.ids, self._sides, settings.hold_out)
        learned, held_out = split(slices, self._sides)
        lungs = [name == "lungs" for name in held_out.outputs]  # which nobody has corrected
        held_out.masks[:, lungs] = UNKNOWN
        started = time.perf_counter()
        parent = self._first if self._protocol.restart else self.model
        *_, result = finetune(parent, learned, held_out, self._memory, settings)
        assert isinstance(result, FinetuneResult)  # the last
        seconds = time.perf_counter() - started
        if result.step:
            self.model = self._gone(parent, result.model)
            self.versions += 1
        lost = [
            before - remembered(self.model, some)
            for before, some in zip(self._before, self._others, strict=True)
        ]
        return Round(len(corrected), len(held_out), result.step, seconds, *lost)

    def _gone(self, parent: Model, learned: Model) -> Model:
        """Go from the parent as far as the accepted slices of other patients allow."""
        if self._protocol.condition == "no-memory" or not self._accepted:
            return learned
        least = self._on_accepted - MOST_FORGOTTEN
        return farthest(
            parent, learned, lambda model: remembered(model, self._accepted), lambda dice: dice < least
        ).model

    def _slices(self, corrected: dict[int, Mask]) -> LabelledSlices:
        zs = sorted(corrected)
        masks = np.stack([self._target(z, corrected[z]) for z in zs]).astype(np.uint8)
        patients = np.full(len(zs), self._patient.name)
        outputs = self.model.card.outputs
        return LabelledSlices(self._patient.images[zs], masks, patients, outputs, numbers=np.array(zs))

    def _target(self, z: int, lesions: Mask) -> npt.NDArray[np.bool_]:
        values = {label.name: label.value for label in self.model.card.lesions}
        return np.stack(
            [
                self.lungs[z] > 0 if name == "lungs" else lesions == values[name]
                for name in self.model.card.outputs
            ]
        )


def remembered(model: Model, known: tuple[Patient, ...]) -> float:
    """Return the lesion Dice, pooled over each patient's slices and then averaged; NaN without any."""
    if not known:
        return float("nan")
    found = [_predict(model, patient.images, {}).lesions > 0 for patient in known]
    pairs = zip(found, known, strict=True)
    return float(np.mean([dice(lesions, patient.lesions > 0) for lesions, patient in pairs]))


def run(assessed: Assessed, model: Model, protocol: Protocol) -> dict[str, Any]:
    """Simulate one patient and return a record that JSON can hold."""
    steps = list(simulate(assessed, model, protocol))
    return {
        "patient": assessed.patient.name,
        "slices": len(assessed.patient.images),
        "model": assessed.model.name,
        "protocol": asdict(protocol),
        "points": [asdict(step) for step in steps if isinstance(step, Point)],
        "rounds": [asdict(step) for step in steps if isinstance(step, Round)],
    }


# What it takes to correct a slice


@dataclass(frozen=True)
class Cost:
    """What it takes to turn the labels of a slice into the truth.

    Attributes
    ----------
    strokes : int
        Vertices of the truth's simplified outlines that lie more than 2 pixels from the
        outline of the labels: pieces of outline that have to be drawn.
    clicks : int
        One for each labelled part that has nothing to do with the truth (delete), each hole
        that the truth does not have (fill), and each part with another label (relabel).
    """

    strokes: int = 0
    clicks: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.strokes + other.strokes, self.clicks + other.clicks)


def correction_cost(labels: Mask, truth: Mask) -> Cost:
    """Count the strokes and clicks from the labels of a slice to the truth.

    Parameters
    ----------
    labels, truth : ndarray of uint8, shape (y, x)
        Label values; 0 is background.
    """
    if np.array_equal(labels, truth):
        return Cost()
    labelled, true = labels > 0, truth > 0
    near = _distance_to_outline(labelled)
    strokes = 0
    for outline in outlines(true):
        corners = cv2.approxPolyDP(outline, _SIMPLIFY_PX, True)[:, 0]
        strokes += int(np.count_nonzero(near[corners[:, 1], corners[:, 0]] > _FAR_PX))
    return Cost(
        strokes, _unrelated(labelled, true) + _unwanted_holes(labelled, true) + _renamed(labels, truth)
    )


def _distance_to_outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Distance of each pixel, in pixels, to the outline of the mask; large if it is empty."""
    away = np.ones(mask.shape, np.uint8)
    for outline in outlines(mask):
        away[outline[:, 0, 1], outline[:, 0, 0]] = 0
    if away.all():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _unrelated(labelled: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> int:
    """Count the labelled parts that do not touch the truth."""
    parts, sizes = numbered(labelled, touching="corners")
    return len(sizes) - 1 - len(np.setdiff1d(parts[true], [0]))


def _unwanted_holes(labelled: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> int:
    """Count the holes in the labels that lie wholly in the truth."""
    holes, sizes = numbered(ndimage.binary_fill_holes(labelled) & ~labelled)
    return len(sizes) - 1 - len(np.setdiff1d(holes[~true], [0]))


def _renamed(labels: Mask, truth: Mask) -> int:
    """Count the parts of each true label that are labelled, most of them otherwise."""
    clicks = 0
    for value in np.unique(truth[truth > 0]):
        parts, sizes = numbered(truth == value, touching="corners")
        for part in range(1, len(sizes)):
            there = labels[parts == part]
            there = there[there > 0]
            if len(there) and int(np.bincount(there).argmax()) != value:
                clicks += 1
    return clicks


class Radiologist:
    """Knows the truth of a patient, and shows a slice of it only by correcting the slice.

    Parameters
    ----------
    truth : ndarray of uint8, shape (z, y, x)
        Lesion labels.
    """

    def __init__(self, truth: Mask) -> None:
        self._truth = truth
        self.corrected: dict[int, Mask] = {}
        self.cost = Cost()

    def __len__(self) -> int:
        return len(self._truth)

    def correct(self, z: int, labels: Mask) -> Mask:
        """Return the truth of slice `z` and add up what it took to get there from `labels`.

        Raises
        ------
        ValueError
            If the slice was corrected before.
        """
        if z in self.corrected:
            raise ValueError(f"slice {z} was corrected before")
        self.cost += correction_cost(labels, self._truth[z])
        self.corrected[z] = self._truth[z].copy()
        return self.corrected[z]

    def mark(self, labels: Mask) -> float:
        """Return the Dice of the labels pooled over the slices that are not corrected; 1 if all are."""
        rest = np.setdiff1d(np.arange(len(self)), list(self.corrected))
        labelled, true = labels[rest] > 0, self._truth[rest] > 0
        total = np.count_nonzero(labelled) + np.count_nonzero(true)
        return 1.0 if total == 0 else 2.0 * np.count_nonzero(labelled & true) / total


# Many patients


def run_all(
    patients: Sequence[Assessed], protocols: Sequence[Protocol], out: Path, *, jobs: int = 1
) -> Iterator[Record]:
    """Simulate every patient under every protocol; what is in the folder already is read, not made again.

    Parameters
    ----------
    patients : sequence of Assessed
    protocols : sequence of Protocol
    out : Path
        Folder, made if needed: a JSON file per patient and protocol.
    jobs : int
        Processes; they share the processor's cores.

    Yields
    ------
    dict
        A record, as from `effort.run`, as soon as it is done.

    Raises
    ------
    JobError
        If a file in the folder comes from another protocol or model, or cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    missing = []
    for protocol in protocols:
        for assessed in patients:
            path = out / file_name(assessed, protocol)
            if path.is_file():
                yield _read(path, assessed, protocol)
            else:
                missing.append((assessed, protocol, path))
    threads = max(1, torch.get_num_threads() // max(1, jobs))  # those that this process may take
    if jobs <= 1:
        for work in missing:
            yield _work(*work, threads)
        return
    # fresh processes: forked ones would share torch's threads
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        coming = [pool.submit(_work, *work, threads) for work in missing]
        try:
            for done in as_completed(coming):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def file_name(assessed: Assessed, protocol: Protocol) -> str:
    """Return the name of the file that a simulation is kept in."""
    return f"{assessed.patient.name}-{protocol.strategy}-{protocol.condition}-{protocol.seed}.json"


def _work(assessed: Assessed, protocol: Protocol, path: Path, threads: int) -> Record:
    torch.set_num_threads(threads)
    record = run(assessed, load_model(assessed.model, "cpu"), protocol)
    record |= {"weights": _checksum(assessed.model), "threads": threads}
    try:
        write_text(path, json.dumps(record, indent=1))
    except OSError as error:
        raise JobError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error
    return record


def _read(path: Path, assessed: Assessed, protocol: Protocol) -> Record:
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        # what was added to the protocol since then had its default
        made = {**_as_json(Protocol()), **_in_todays_names(record["protocol"])}, record["weights"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} cannot be read ({error}): delete it to make it again.") from error
    if made != (_as_json(protocol), _checksum(assessed.model)):
        raise JobError(
            f"{path} was made with other settings or another model: choose another folder, or delete it."
        )
    return record


def _in_todays_names(protocol: Record) -> Record:
    """Return a stored protocol with the names of today."""
    names = {"anew": "restart", "way": "interpolation"}
    named = {names.get(key, key): value for key, value in protocol.items()}
    return {**named, "settings": {names.get(key, key): value for key, value in protocol["settings"].items()}}


def _as_json(protocol: Protocol) -> Record:
    """Return the protocol as it comes back from JSON, which knows no tuples."""
    values: Record = json.loads(json.dumps(asdict(protocol)))
    return values


def _checksum(model: Path) -> int:
    return zlib.crc32(model.read_bytes())
