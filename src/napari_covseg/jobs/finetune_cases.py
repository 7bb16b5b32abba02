"""A model learns from the cases of a workspace, and a new version is proposed."""

from __future__ import annotations

import datetime
import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from napari_covseg.cases.case import Review, Touch
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import Curves, LearnedFrom, WorkspaceModel, WorkspaceModels
from napari_covseg.errors import ModelError
from napari_covseg.jobs.events import Event, ModelProposed, Notice, Progress, TrainingStep
from napari_covseg.jobs.find_model import FoundModel, find_model
from napari_covseg.jobs.memory import loaded_model
from napari_covseg.jobs.requests import Finetune
from napari_covseg.jobs.steps import Control, JobCancelled, in_thread
from napari_covseg.learn.corrections import Side, choose_sides, labelled_slices, rank, reviewed, split
from napari_covseg.learn.finetune import FinetuneResult, FinetuneSettings, Finetuning
from napari_covseg.learn.regression import (
    MEMORY_SEEDS,
    Gain,
    Interpolated,
    Scores,
    farthest,
    forgotten,
    gain_of,
    judge,
    phantom_slices,
)
from napari_covseg.learn.score import count_by_slice, model_probabilities, score_model
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices, SliceId
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import Model, model_bytes, unfold

T = TypeVar("T")
STEPS_PER_SLICE = 4
"""So many at least, where a fine-tuning is given only time."""
ACCEPTED_AT_MOST = 24
"""Accepted slices of other cases that are remembered, and as many that are measured."""
_HALF = b"\x80"  # what half of all hashes begin below


@dataclass(frozen=True, eq=False)
class _Material:
    """All that a fine-tuning needs, read from the workspace."""

    workspace: Workspace
    found: FoundModel
    model: Model
    first: Model | None  # what the line of versions began with, where that is another one
    learned: LabelledSlices
    held_out: LabelledSlices
    memory: LabelledSlices
    accepted: LabelledSlices | None
    seen: dict[str, LearnedFrom]


def finetune_cases(job: Finetune, control: Control) -> Iterator[Event]:
    """Learn from a workspace's cases, one step per turn, and propose a version.

    Raises
    ------
    CaseError
        If a case cannot be read, or the version not be written.
    ModelError
        If the model cannot be used, or there is nothing to learn from.
    """
    settings = FinetuneSettings(seconds=job.seconds, seed=job.seed)
    material = yield from in_thread(lambda: _gather(job, settings), lambda: Progress(0, 0, "steps"))
    usual = max(settings.steps, STEPS_PER_SLICE * len(material.learned))
    settings = replace(settings, steps=usual if job.steps is None else job.steps)
    run = Finetuning(material.model, material.learned, material.held_out, material.memory, settings)
    cancelled: JobCancelled | None = None
    try:
        for told in run.steps():
            loss = None if math.isnan(told.loss) else told.loss
            yield TrainingStep(told.step, told.steps, loss, told.seconds, told.held_out, told.best)
    except JobCancelled as error:
        cancelled = error
    result = run.result()
    if result.step == 0:
        yield Notice("No step made the model better on the held-out slices, so no new version is proposed.")
    else:
        cancelled = yield from _propose(material, result, settings, cancelled)
    if cancelled is not None:
        raise cancelled


def _gather(job: Finetune, settings: FinetuneSettings) -> _Material:
    workspace = Workspace.open(job.workspace, create=False)
    found = find_model(job.model, workspace)
    model = loaded_model(found, job.device)
    slices, revisions = [], {}
    for case_id in job.cases:
        case = workspace.case(case_id)
        revisions[case_id] = case.activity.revision
        slices.append(labelled_slices(case, reviewed(case), model.card))
    corrected = LabelledSlices.joined(slices)
    if corrected is None:
        raise ModelError("No slice is corrected or accepted yet: correct or accept a few slices first.")
    known = WorkspaceModels(workspace).sides()
    sides = choose_sides(corrected.ids, known, settings.hold_out)
    learned, held_out = split(corrected, sides)
    held_out = _judged(workspace, held_out)
    seen = {
        case_id: LearnedFrom(
            revision,
            tuple(z for name, z in learned.ids if name == case_id),
            tuple(z for name, z in held_out.ids if name == case_id),
        )
        for case_id, revision in revisions.items()
    }
    remembered, measured = _accepted_elsewhere(workspace, job, model.card, known)
    old = LabelledSlices.joined([phantom_slices(model.card, MEMORY_SEEDS), *remembered])
    assert old is not None
    memory = replace(old, masks=model_probabilities(model, old.images) / np.float32(255))
    first = _first(found, workspace, job.device)
    return _Material(
        workspace, found, model, first, learned, held_out, memory, LabelledSlices.joined(measured), seen
    )


def _judged(workspace: Workspace, slices: LabelledSlices) -> LabelledSlices:
    """Return held-out slices with only what tells right from wrong.

    Not the lungs of a slice that is not accepted and whose lungs nobody has touched: they
    are what the model said itself, which only the model as it is can match.
    """
    masks = slices.masks.copy()
    for row, (case_id, z) in enumerate(slices.ids):
        case = workspace.case(case_id)
        if case.review[z] != Review.ACCEPTED and not (case.read_touched("lungs", z) == Touch.PERSON).any():
            masks[row, [name == "lungs" for name in slices.outputs]] = UNKNOWN
    return replace(slices, masks=masks)


def _accepted_elsewhere(
    workspace: Workspace, job: Finetune, card: ModelCard, known: Mapping[SliceId, Side]
) -> tuple[list[LabelledSlices], list[LabelledSlices]]:
    """Read accepted slices of cases that are not learned from: to remember, and to measure.

    Of the cases used last, and evenly spaced in each. The accepted slices of a case that is
    learned from are corrected slices already: a person's labels say there what is right, and
    remembering what the model said would pull against them.
    """
    cases = (workspace.case(info.id) for info in workspace.cases() if info.id not in job.cases)
    accepted = [(case, zs) for case in cases if (zs := reviewed(case, (Review.ACCEPTED,)))]
    parts: tuple[list[LabelledSlices], list[LabelledSlices]] = [], []
    share = max(1, ACCEPTED_AT_MOST // max(1, len(accepted)))
    for case, zs in accepted[:ACCEPTED_AT_MOST]:
        for measured, part in enumerate(parts):
            some = [z for z in zs if _is_measured((case.id, z), known) == measured]
            part.append(labelled_slices(case, some[:: max(1, -(-len(some) // share))], card))
    return parts


def _first(found: FoundModel, workspace: Workspace, device: str) -> Model | None:
    """Return the model that a version's line began with; None if that is itself, or not to be found."""
    if found.card.id == found.base:
        return None
    try:
        return loaded_model(find_model(found.base, workspace), device)
    except ModelError:  # a file that only its path leads to
        return None


def _is_measured(slice_id: SliceId, known: Mapping[SliceId, Side]) -> bool:
    """Whether an accepted slice is measured, not remembered; which others there are does not matter.

    What a model has learned from does not judge, and what is held out is not shown to it.
    """
    if slice_id in known:
        return known[slice_id] == "held-out"
    # the lower half, of which `choose_sides` would hold some out: they are no memory before either
    return rank(slice_id)[0] < _HALF


def _propose(
    material: _Material, result: FinetuneResult, settings: FinetuneSettings, cancelled: JobCancelled | None
) -> Generator[Event, None, JobCancelled | None]:
    """Measure what was learned, and write it as a version; returns the cancellation, if any.

    A cancellation ends the measuring, but not the writing: the best so far is proposed anyway.
    """
    parent = material.model.card.id
    done = Progress(len(result.losses), settings.steps, "steps")
    regression: dict[str, tuple[Scores, Scores]] | None = None
    held_out = _held_out(material, result)
    share, gain = 1.0, None
    if cancelled is None:
        try:
            found, regression = yield from in_thread(lambda: _regression(material, result), lambda: done)
            gain = yield from in_thread(lambda: _gain(material, result, found.model), lambda: done)
        except JobCancelled as error:
            cancelled = error
        else:
            share, result = found.share, replace(result, model=found.model)
            if held_out is not None and share < 1:
                held_out = held_out[0], score_model(found.model, material.held_out)
    pairs = ({} if held_out is None else {"held-out": held_out}) | (regression or {})
    scores = {part: {"before": before, "after": after} for part, (before, after) in pairs.items()}
    verdict = judge(held_out, regression, gain)
    how = {**asdict(settings), "interpolation": share * settings.interpolation}
    written = in_thread(lambda: _keep(material, result, how, scores), lambda: done)
    version, late = yield from _to_the_end(written)
    yield ModelProposed(version.id, parent, scores, verdict.keep, verdict.reason)
    return cancelled or late


def _to_the_end(steps: Generator[Event, None, T]) -> Generator[Event, None, tuple[T, JobCancelled | None]]:
    """Go on with steps that are cancelled; returns their result, and the cancellation, if any."""
    cancelled: JobCancelled | None = None
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return end.value, cancelled
        try:
            yield event
        except JobCancelled as error:
            cancelled = error


def _held_out(material: _Material, result: FinetuneResult) -> tuple[Scores, Scores] | None:
    if not len(material.held_out):
        return None
    outputs = material.model.card.outputs
    rows = result.held_out[0], result.held_out[list(result.measured).index(result.step)]
    before, after = (
        {name: float(value) for name, value in zip(outputs, row, strict=True) if not math.isnan(value)}
        for row in rows
    )
    return before, after


def _gain(material: _Material, result: FinetuneResult, learned: Model) -> Gain | None:
    """Return how far what was learned is better than its parent on the held-out slices, None without any."""
    if not len(material.held_out):
        return None
    before, after = (count_by_slice(model, material.held_out) for model in (material.model, learned))
    return gain_of(before, after, material.held_out.outputs, len(result.measured) - 1)


def _regression(
    material: _Material, result: FinetuneResult
) -> tuple[Interpolated[dict[str, Scores]], dict[str, tuple[Scores, Scores]]]:
    """Go as far as the regression set allows; return what came of it, and the scores before and after."""
    parts = {"phantoms": phantom_slices(material.model.card)}
    if material.accepted is not None:
        parts["accepted slices of other cases"] = material.accepted

    def measure(model: Model) -> dict[str, Scores]:
        return {part: score_model(model, slices) for part, slices in parts.items()}

    before = measure(material.model)
    first = before if material.first is None else measure(material.first)
    found = farthest(material.model, result.model, measure, lambda after: bool(forgotten(first, after)))
    return found, {part: (before[part], found.measured[part]) for part in parts}


def _keep(
    material: _Material, result: FinetuneResult, how: dict[str, Any], scores: dict[str, Any]
) -> WorkspaceModel:
    parent = material.model.card
    count = len(material.learned)

    def make(version_id: str) -> tuple[bytes, str]:
        """Return the file and the card of the version that gets this id."""
        card = replace(
            parent,
            id=version_id,
            parent=parent.id,
            title=f"{parent.title.split(', fine-tuned')[0]}, fine-tuned",
            trained_on=f"{parent.trained_on}; then {count} corrected slices of {len(material.seen)} cases",
            recipe={"fine-tuning": how, "step": result.step, "parent": parent.recipe},
            scores=scores,
            created=datetime.date.today().isoformat(),
        )
        return model_bytes(unfold(replace(result.model, card=card)), card), card.to_json()

    return WorkspaceModels(material.workspace).add(
        material.found.base,
        parent.id,
        make,
        scores=scores,
        learned_from=material.seen,
        curves=Curves(result.losses, result.measured, result.held_out),
    )
