from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reviewing import correct
from tiny_model import tiny_scan

from napari_covseg.cases import chunks
from napari_covseg.cases.case import Case, Review
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import LearnedFrom, ModelState, WorkspaceModels
from napari_covseg.errors import CaseError, ModelError
from napari_covseg.jobs import finetune_cases
from napari_covseg.jobs.child import Scheduler
from napari_covseg.jobs.events import (
    Cancelled,
    Event,
    Finished,
    ModelProposed,
    Notice,
    PredictionStarted,
    Progress,
    TrainingStep,
)
from napari_covseg.jobs.requests import Finetune, Predict, Refine
from napari_covseg.jobs.run import run
from napari_covseg.jobs.steps import JobCancelled
from napari_covseg.learn import regression
from napari_covseg.learn.corrections import choose_sides, labelled_slices, reviewed
from napari_covseg.learn.finetune import FinetuneSettings
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.models.card import ModelCard, read_card


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn fast, propose the last weights, and stand in for the phantoms, which take a second each."""
    settings = partial(FinetuneSettings, learning_rate=1e-2, crop=64, measure_every=4, tolerance=9)
    monkeypatch.setattr(finetune_cases, "FinetuneSettings", settings)
    random = np.random.default_rng(0)
    slices = LabelledSlices(
        random.integers(0, 255, (2, 64, 64)).astype(np.uint8),
        (random.random((2, 2, 64, 64)) > 0.8).astype(np.uint8),
        np.full(2, "phantom"),
    )
    monkeypatch.setattr(regression, "_phantom_slices", lambda *_: slices)


@pytest.fixture
def finetune(workspace: Workspace, case: Case, model: str) -> Finetune:
    correct(workspace, case.id, (0, 1, 3, 4))
    correct(workspace, case.id, (6,), Review.ACCEPTED)
    return Finetune(workspace.path, (case.id,), model, steps=12, device="cpu")


def proposed(events: list) -> ModelProposed:
    return next(event for event in events if isinstance(event, ModelProposed))


def steps(events: list) -> list[TrainingStep]:
    return [event for event in events if isinstance(event, TrainingStep)]


def test_a_version_is_proposed(workspace: Workspace, case: Case, finetune: Finetune) -> None:
    events = list(run(finetune))
    told = steps(events)
    assert [event.step for event in told] == list(range(13)) and events[-1] == Finished()
    assert told[0].loss is None and all(event.loss for event in told[1:])
    assert set(told[0].held_out or ()) == {"lungs", "lesion"}
    event = proposed(events)
    versions = WorkspaceModels(workspace)
    version = versions.get(event.model_id)
    assert (version.id, version.base, version.parent) == ("tiny-1", "tiny", "tiny")
    assert version.state == ModelState.PROPOSED and versions.current("tiny") == "tiny"
    assert version.scores == event.scores and set(event.scores) == {"held-out", "phantoms"}
    seen = version.learned_from[case.id]
    assert sorted(seen.learned + seen.held_out) == [0, 1, 3, 4, 6] and len(seen.held_out) == 1
    assert seen.revision == case.activity.revision
    curves = versions.curves(version.id)
    assert len(curves.losses) == 12 and curves.held_out.shape == (len(curves.measured), 2)
    assert event.scores["held-out"]["before"] == told[0].held_out
    # nobody calls it better by one slice, and what it paints there is said
    assert not event.recommended and re.search(
        r"On the held-out slice it paints \d+% \w+ lungs", event.reason
    )


def test_lungs_that_nobody_looked_at_do_not_decide(workspace: Workspace, case: Case, model: str) -> None:
    correct(workspace, case.id, range(5), groups=("lesions",))
    job = Finetune(workspace.path, (case.id,), model, steps=4, device="cpu")
    events = list(run(job))
    assert all(set(event.held_out) == {"lesion"} for event in steps(events) if event.held_out is not None)
    scores = proposed(events).scores
    assert set(scores["held-out"]["before"]) == set(scores["held-out"]["after"]) == {"lesion"}
    assert set(scores["phantoms"]["after"]) == {"lungs", "lesion"}


def test_what_a_tool_spread_is_neither_taught_nor_held_out(
    workspace: Workspace, case: Case, model: str
) -> None:
    correct(workspace, case.id, (1, 4))
    with OpenCase(workspace, case.id) as opened:
        for z, rows in ((2, slice(14, 20)), (4, slice(22, 28))):
            opened.live["lesions"][z, rows, 8:14] = 3
            y, x = (axis.ravel() for axis in np.mgrid[rows, 8:14])
            opened.record("lesions", (np.full(36, z), y, x), 0, "smooth", spread=[z])
    card = read_card(Path(model))
    assert reviewed(case) == [1, 4]
    lungs, lesion = card.outputs.index("lungs"), card.outputs.index("lesion")
    masks = labelled_slices(case, [4], card).masks[0]
    assert (masks[lesion] == UNKNOWN).any() and (masks[lesion] == 1).any()
    assert not (masks[lungs] == UNKNOWN).any()
    with OpenCase(workspace, case.id) as opened:
        opened.set_review(2, Review.ACCEPTED)
    assert reviewed(case) == [1, 2, 4]
    assert not (labelled_slices(case, [2], card).masks == UNKNOWN).any()


def share_of(workspace: Workspace, model_id: str) -> float:
    card = ModelCard.from_json(WorkspaceModels(workspace).get(model_id).card, "the version")
    return float(card.recipe["fine-tuning"]["interpolation"])


@pytest.mark.slow
def test_a_version_that_forgets_stays_near_its_parent(
    workspace: Workspace, finetune: Finetune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "MOST_FORGOTTEN", 9.0)
    far = proposed(list(run(finetune)))
    monkeypatch.setattr(regression, "MOST_FORGOTTEN", -9.0)  # any is too much
    near = proposed(list(run(finetune)))
    assert share_of(workspace, far.model_id) == FinetuneSettings().interpolation
    assert share_of(workspace, near.model_id) == FinetuneSettings().interpolation / 4
    assert near.scores["held-out"]["before"] == far.scores["held-out"]["before"]
    assert near.scores["held-out"]["after"] != far.scores["held-out"]["after"]


def test_more_slices_take_more_steps(
    workspace: Workspace, finetune: Finetune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_cases, "STEPS_PER_SLICE", 15)

    def told(job: Finetune) -> int:
        return next(event for event in run(job) if isinstance(event, TrainingStep)).steps

    assert told(replace(finetune, steps=None)) == 4 * 15  # one of five is held out
    assert told(finetune) == 12
    monkeypatch.setattr(finetune_cases, "STEPS_PER_SLICE", 1)
    assert told(replace(finetune, steps=None)) == FinetuneSettings().steps


def test_a_version_predicts_and_learns_on(workspace: Workspace, case: Case, finetune: Finetune) -> None:
    first = proposed(list(run(finetune))).model_id
    sides = WorkspaceModels(workspace).sides()
    job = Predict(workspace.path, case.id, first, 0, device="cpu")
    prediction_id = next(event.prediction_id for event in run(job) if isinstance(event, PredictionStarted))
    assert case.prediction(prediction_id).info.model_id == first
    correct(workspace, case.id, (2, 5))
    second = proposed(list(run(replace(finetune, model=first)))).model_id
    version = WorkspaceModels(workspace).get(second)
    assert (version.base, version.parent) == ("tiny", first)
    again = WorkspaceModels(workspace).sides()
    assert {one: again[one] for one in sides} == sides and len(again) == 7


def test_the_parent_and_the_case_stay_as_they_are(
    workspace: Workspace, case: Case, finetune: Finetune
) -> None:
    folders = (Path(finetune.model).parent, Path(case.path))
    before = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    list(run(finetune))
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(workspace: Workspace, finetune: Finetune) -> None:
    versions = WorkspaceModels(workspace)
    losses = [
        versions.curves(proposed(list(run(replace(finetune, seed=seed)))).model_id).losses
        for seed in (0, 0, 1)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert not np.allclose(losses[0], losses[2], rtol=1e-3)


def test_cancelled_it_proposes_its_best_so_far(workspace: Workspace, finetune: Finetune) -> None:
    job = run(replace(finetune, steps=500))
    events = []
    for event in job:
        events.append(event)
        if isinstance(event, TrainingStep) and event.step == 11:
            break
    with pytest.raises(JobCancelled):
        events.append(job.throw(JobCancelled()))
        while True:
            events.append(next(job))
    event = proposed(events)
    version = WorkspaceModels(workspace).get(event.model_id)
    assert not event.recommended and set(version.scores) == {"held-out"}
    assert len(WorkspaceModels(workspace).curves(version.id).losses) == 11


def test_cancelled_before_the_first_step_it_proposes_nothing(
    workspace: Workspace, finetune: Finetune
) -> None:
    job = run(finetune)
    while not isinstance(next(job), TrainingStep):
        pass
    with pytest.raises(JobCancelled):
        assert isinstance(job.throw(JobCancelled()), Notice)
        next(job)
    assert WorkspaceModels(workspace).list() == []


@dataclass
class Held:
    """Stands in for a function of the job, and ends only when it may."""

    function: Callable[..., Any]
    begun: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)

    def __call__(self, *args: object) -> Any:
        self.begun.set()
        assert self.may_end.wait(60)
        return self.function(*args)


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Held]]:
    made = []

    def replaced(name: str) -> Held:
        made.append(Held(getattr(finetune_cases, name)))
        monkeypatch.setattr(finetune_cases, name, made[-1])
        return made[-1]

    yield replaced
    for held in made:
        held.may_end.set()  # no thread outlives its test


def cancelled_in(held: Held, job: Generator[Event, None, None]) -> tuple[Event, ModelProposed]:
    """Cancel a job when `held` has begun; returns the answer, and the version proposed before its end."""
    while not held.begun.is_set():
        next(job)
    events = [job.throw(JobCancelled())]
    held.may_end.set()
    with pytest.raises(JobCancelled):
        while True:
            events.append(next(job))
    return events[0], proposed(events)


def test_cancelled_while_it_is_measured_it_is_proposed_all_the_same(
    workspace: Workspace, finetune: Finetune, hold: Callable[[str], Held]
) -> None:
    _, event = cancelled_in(hold("_regression"), run(finetune))
    (version,) = WorkspaceModels(workspace).list()
    assert (version.id, set(version.scores)) == (event.model_id, {"held-out"})
    assert not event.recommended and len(WorkspaceModels(workspace).curves(version.id).losses) == 12


def test_cancelled_while_it_is_written_it_is_proposed_with_all_that_was_measured(
    workspace: Workspace, finetune: Finetune, hold: Callable[[str], Held]
) -> None:
    answer, event = cancelled_in(hold("_keep"), run(finetune))
    assert isinstance(answer, Progress)  # the write goes on
    (version,) = WorkspaceModels(workspace).list()
    assert (version.id, set(version.scores)) == (event.model_id, {"held-out", "phantoms"})


def test_a_write_that_fails_after_a_cancellation_is_told(
    workspace: Workspace, finetune: Finetune, hold: Callable[[str], Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise CaseError("The disk is full.")

    monkeypatch.setattr(finetune_cases, "_keep", full)
    with pytest.raises(CaseError, match="full"):
        cancelled_in(hold("_keep"), run(finetune))
    assert WorkspaceModels(workspace).list() == []


def test_interrupted_it_leaves_no_version(workspace: Workspace, finetune: Finetune) -> None:
    job = run(finetune)
    for event in job:
        if isinstance(event, TrainingStep) and event.step == 5:
            break
    job.close()
    assert WorkspaceModels(workspace).list() == []


def test_a_full_disk_is_one_sentence(
    workspace: Workspace, finetune: Finetune, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(chunks, "_write_file", full)
    with pytest.raises(CaseError, match="disk is full"):
        list(run(finetune))
    assert WorkspaceModels(workspace).list() == []


def test_accepted_slices_of_other_cases_are_measured(
    workspace: Workspace, finetune: Finetune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_cases, "rank", lambda one: (bytes([64 * one[1]]), one))
    other = workspace.add_case(tiny_scan())
    correct(workspace, other, range(4), Review.ACCEPTED)
    event = proposed(list(run(finetune)))
    assert set(event.scores) == {"held-out", "phantoms", "accepted slices of other cases"}
    assert set(WorkspaceModels(workspace).get(event.model_id).learned_from) == set(finetune.cases)


def remembered_and_measured(job: Finetune, case_id: str) -> tuple[set[int], set[int]]:
    """Return the slices of a case that a fine-tuning would remember, and those that would judge it."""
    material = finetune_cases._gather(job, finetune_cases.FinetuneSettings())
    measured = () if material.accepted is None else material.accepted.ids
    memory, judges = ([z for one, z in ids if one == case_id] for ids in (material.memory.ids, measured))
    assert max(len(memory), len(judges)) <= finetune_cases.ACCEPTED_AT_MOST
    assert len({*memory, *judges}) == len(memory) + len(judges)
    return set(memory), set(judges)


def test_what_was_learned_from_does_not_judge_and_what_was_held_out_is_not_shown(
    workspace: Workspace, finetune: Finetune
) -> None:
    other = workspace.add_case(tiny_scan(24))
    correct(workspace, other, range(24), Review.ACCEPTED)
    learned, held_out = range(1, 16, 2), range(0, 16, 2)
    seen = {other: LearnedFrom(1, tuple(learned), tuple(held_out))}
    WorkspaceModels(workspace).add("tiny", "tiny", lambda _: (b"model", "{}"), scores={}, learned_from=seen)
    remembered, measured = remembered_and_measured(finetune, other)
    assert remembered >= set(learned) and measured >= set(held_out)
    assert remembered | measured == set(range(24))


def test_accepted_slices_do_not_change_sides_when_others_are_accepted(
    workspace: Workspace, finetune: Finetune
) -> None:
    other = workspace.add_case(tiny_scan(60))
    remembered, measured = set(), set()
    for accepted in (range(5, 20), range(20), range(60)):
        correct(workspace, other, accepted, Review.ACCEPTED)
        now = remembered_and_measured(finetune, other)
        remembered, measured = remembered | now[0], measured | now[1]
        assert remembered and measured and not remembered & measured
    correct(workspace, workspace.add_case(tiny_scan()), range(7), Review.ACCEPTED)
    now = remembered_and_measured(finetune, other)
    assert not now[0] & measured and not now[1] & remembered


def test_what_is_held_out_later_was_not_remembered_before() -> None:
    ids = [("case", z) for z in range(200)]
    chosen = choose_sides(ids)
    assert sum(finetune_cases._is_measured(one, {}) for one in ids) in range(80, 120)
    assert all(finetune_cases._is_measured(one, {}) for one in ids if chosen[one] == "held-out")


def test_without_corrections_there_is_nothing_to_learn(workspace: Workspace, model: str) -> None:
    case_id = workspace.add_case(tiny_scan())
    with pytest.raises(ModelError, match="correct or accept"):
        list(run(Finetune(workspace.path, (case_id,), model, device="cpu")))


def test_a_damaged_version_is_refused(workspace: Workspace, case: Case, finetune: Finetune) -> None:
    made = proposed(list(run(finetune))).model_id
    chunk = workspace.models_folder / made / "weights/c.0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    for job in (
        Predict(workspace.path, case.id, made, 0, device="cpu"),
        replace(finetune, model=made),
    ):
        with pytest.raises(ModelError, match="is damaged") as raised:
            list(run(job))
        assert "\n" not in str(raised.value)


def test_a_slice_is_refined_between_two_steps(case: Case, finetune: Finetune) -> None:
    heard: list[tuple[int, object]] = []
    scheduler = Scheduler(lambda job_id, event: heard.append((job_id, event)))

    def until(job_id: int, kind: type) -> None:
        while not any(number == job_id and isinstance(event, kind) for number, event in heard):
            assert scheduler.turn(1)

    scheduler.submit(1, replace(finetune, steps=500))
    while len([event for _, event in heard if isinstance(event, TrainingStep)]) < 3:
        assert scheduler.turn(1)
    positive = np.zeros(case.shape[1:], bool)
    positive[15:18, 9:12] = True
    hints = (positive, np.zeros_like(positive))
    scheduler.submit(
        2, Refine(finetune.workspace, case.id, finetune.model, 5, 1, *hints, device="cpu"), priority=100
    )
    before = len(heard)
    until(2, Finished)
    assert not [event for job_id, event in heard[before:] if job_id == 1]
    scheduler.cancel(1)
    until(1, Cancelled)
    assert [event for _, event in heard if isinstance(event, ModelProposed | Notice)]
