"""Models name what a case shows: slices outwards from the focus, then the scan as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.case import Case
from napari_covseg.cases.recognition import Recognition
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import ModelError
from napari_covseg.jobs.events import (
    Event,
    Progress,
    RecognitionStarted,
    ScanRecognised,
    SliceRecognised,
)
from napari_covseg.jobs.find_model import find_model
from napari_covseg.jobs.memory import loaded_model
from napari_covseg.jobs.requests import Recognise
from napari_covseg.jobs.steps import HEARTBEAT, Control, ProgressMeter, in_thread
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import choose_device
from napari_covseg.predict.slices import SliceOrder, Workers, default_batch
from napari_covseg.recognise.answers import ScanAnswer, Verdict, heat_grid, modality_of, of_scan, verdict
from napari_covseg.recognise.recogniser import Answer, Recogniser, recognise_slices, shows_lung
from napari_covseg.scans.appearance import Appearance

NOTHING = ScanAnswer((), (), 0)


@dataclass(frozen=True, eq=False)
class Asked:
    """A model that was named, what becomes of its answer and, if it is asked at all, itself."""

    card: ModelCard
    verdict: Verdict
    recogniser: Recogniser | None


def recognise_case(job: Recognise, control: Control) -> Iterator[Event]:
    """Ask models about every slice with lung of a case, and keep what they say.

    Cancelled, it leaves the slices that were answered, unfinished.

    Raises
    ------
    CaseError
        If the case cannot be read or its recognitions not be written.
    ModelError
        If a model cannot be used, or none is named.
    """

    def load() -> tuple[Case, list[Asked], Callable[[int, npt.NDArray[Any]], bool], dict[str, Any]]:
        case = Workspace.open(job.workspace, create=False).case(job.case)
        appearance, window = case.appearance, case.header.get("window")
        asked = asked_about(job.models, appearance, None if window is None else tuple(window), job.device)
        has_lung, rule = _lung_rule(case, appearance)
        return case, asked, has_lung, {"modality": modality_of(appearance), "lungs": rule}

    case, asked, has_lung, settings = yield from in_thread(load, lambda: Progress(0, 0, "slices"))
    settings["device"] = str(choose_device(job.device))
    height, width = case.shape[1:]
    kept: dict[str, Recognition] = {}
    for one in asked:
        if one.recogniser is not None:
            card, said = one.card, {"shown": one.verdict.shown, "caution": one.verdict.caution}
            kept[card.id] = case.begin_recognition(
                card.id,
                card.task,
                card.outputs,
                {**settings, **said, "thresholds": {name: card.thresholds[name] for name in card.outputs}},
                job.revision,
                heat_grid((height, width)) if job.heat_maps else None,
            )

    def write(card: ModelCard, answer: Answer) -> str:
        kept[card.id].write_slice(answer.z, answer.probabilities, answer.heat)
        return kept[card.id].id

    order = SliceOrder(case.shape[0], job.first_slice)
    control.on_focus(order.refocus)
    yield from told(case.name or case.id, asked, {card: one.id for card, one in kept.items()})
    answers: dict[str, npt.NDArray[np.float64]] = {}
    yield from ask(case.read_slice, asked, order, has_lung, answers, job.heat_maps, write)
    for one in asked:
        if one.recogniser is not None:
            found = of_scan(one.card, answers[one.card.id])
            kept[one.card.id].finish(found.probabilities, found.shares)
            yield scan_recognised(case.name or case.id, one, found, kept[one.card.id].id)


def asked_about(
    names: tuple[str, ...], appearance: Appearance, window: tuple[float, float] | None, device: str
) -> list[Asked]:
    """Return the models of these names, each with its verdict; those that are not asked stay unloaded.

    Raises
    ------
    ModelError
        If one cannot be used, is named twice, or none is named.
    """
    if not names:
        raise ModelError(
            f"There is no model that has learned from such scans ({appearance.kind}): install one, or name "
            "its file."
        )
    if len(set(names)) < len(names):
        raise ModelError(f"A model is named twice ({', '.join(names)}): name each once.")
    found = []
    for name in names:
        model = find_model(name, task=None)
        if model.card.task == "segmentation":
            raise ModelError(
                f"The model {name} is for segmentation, it recognises nothing: choose another one."
            )
        said = verdict(model.card, appearance)
        loaded = Recogniser(loaded_model(model, device), appearance, window) if said.asked else None
        found.append(Asked(model.card, said, loaded))
    return found


def told(name: str, asked: list[Asked], places: dict[str, str]) -> Iterator[Event]:
    """Yield what is known before the first slice: which models begin, and which say nothing, and why."""
    for one in asked:
        card = one.card
        if one.recogniser is None:
            yield scan_recognised(name, one, NOTHING)
        else:
            yield RecognitionStarted(card.id, card.task, card.outputs, places.get(card.id, ""))


def scan_recognised(name: str, one: Asked, found: ScanAnswer, place: str = "") -> ScanRecognised:
    """Return the event of a model's answer for a scan."""
    card, said = one.card, one.verdict
    answer = (found.probabilities, found.shares, found.slices)
    return ScanRecognised(name, card.id, card.task, card.outputs, *answer, said.shown, said.caution, place)


def ask(
    read_slice: Callable[[int], npt.NDArray[Any]],
    asked: list[Asked],
    order: SliceOrder,
    has_lung: Callable[[int, npt.NDArray[Any]], bool],
    answers: dict[str, npt.NDArray[np.float64]],
    heat_maps: bool,
    keep: Callable[[ModelCard, Answer], str],
) -> Iterator[Event]:
    """Ask about all slices, and fill `answers`, by id of the model, (z, outputs).

    Parameters
    ----------
    read_slice, has_lung
        See `recognise_slices`.
    asked : list of Asked
    order : SliceOrder
    answers : dict of str to ndarray
    heat_maps : bool
    keep : callable
        Takes each answer, and returns where in a case it is kept.
    """
    recognisers = [one.recogniser for one in asked if one.recogniser is not None]
    count = len(order)
    for one in recognisers:
        answers[one.model.card.id] = np.full((count, len(one.model.card.outputs)), np.nan)
    if not recognisers:
        return
    meter = ProgressMeter(count)
    device = recognisers[0].model.device
    with Workers(device) as workers:
        batches = recognise_slices(
            read_slice,
            recognisers,
            order.take,
            has_lung,
            workers,
            batch=default_batch(device),
            heat_maps=heat_maps,
            heartbeat=HEARTBEAT,
        )
        for batch in batches:
            for recogniser, answer in batch:
                card = recogniser.model.card
                place = keep(card, answer)
                answers[card.id][answer.z] = answer.probabilities
                known = tuple(None if math.isnan(one) else one for one in answer.probabilities)
                yield SliceRecognised(card.id, answer.z, known, place)
            meter.at(meter.progress.done + len(batch) // len(recognisers))
            yield meter.progress


def _lung_rule(case: Case, appearance: Appearance) -> tuple[Callable[[int, npt.NDArray[Any]], bool], str]:
    """Return which slices have lung: by labels where a model has labelled the whole case, else by a rule."""
    runs = case.predictions() if appearance.kind == "chest CT" else []
    if any(run.finished and "refined" not in run.settings and "lungs" in run.class_names for run in runs):
        return lambda z, _: bool(case.read_labels("lungs", z).any()), "labels"
    return lambda _, slice_: shows_lung(slice_, appearance), "rule"
