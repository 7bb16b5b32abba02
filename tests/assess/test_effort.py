"""The protocol is honest: what is corrected does not count, what is not corrected is not seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from napari_covseg.assess import effort
from napari_covseg.assess.effort import Point, Protocol, Round, run, simulate
from napari_covseg.assess.patients import Assessed, Patient
from napari_covseg.learn.finetune import FinetuneProgress, FinetuneResult
from napari_covseg.learn.finetune import finetune as real
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.models.file import Model

Make = Callable[..., Protocol]


@dataclasses.dataclass
class Lesson:
    """What one fine-tuning was given."""

    learned: LabelledSlices
    held_out: LabelledSlices
    memory: LabelledSlices | None

    @property
    def slices(self) -> set[int]:
        return {z for part in (self.learned, self.held_out) for _, z in part.ids}


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[Lesson]:
    """Spy on what reaches the fine-tuning; its last weights are kept, so that rounds build on each other."""
    given: list[Lesson] = []

    def spy(
        model: Model,
        corrected: LabelledSlices,
        held_out: LabelledSlices,
        memory: LabelledSlices | None,
        *rest: object,
    ) -> Iterator[FinetuneProgress | FinetuneResult]:
        given.append(Lesson(corrected, held_out, memory))
        yield from real(model, corrected, None, memory, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(effort, "finetune", spy)
    return given


def test_the_model_sees_the_truth_of_corrected_slices_only(
    assessed: Assessed, model: Model, protocol: Make, lessons: list[Lesson]
) -> None:
    told = list(simulate(assessed, model, protocol()))
    rounds = [one for one in told if isinstance(one, Round)]
    assert [one.corrected for one in rounds] == [5, 10] == [len(lesson.slices) for lesson in lessons]
    assert lessons[0].slices < lessons[1].slices
    for lesson, one in zip(lessons, rounds, strict=True):
        # those that only check the weights were corrected as well, and are counted
        assert len(lesson.learned) + len(lesson.held_out) == one.corrected
        assert len(lesson.held_out) == one.held_out >= 1
        for part in (lesson.learned, lesson.held_out):
            for (name, z), image, target in zip(part.ids, part.images, part.masks, strict=True):
                assert name == assessed.patient.name
                assert np.array_equal(image, assessed.patient.images[z])
                assert np.array_equal(target[1], assessed.patient.lesions[z] > 0)
    assert {*lessons[0].held_out.ids} <= {*lessons[1].held_out.ids}  # on their side for good


def test_the_truth_of_other_slices_changes_nothing_but_the_marks(
    assessed: Assessed, model: Model, protocol: Make, lessons: list[Lesson]
) -> None:
    """Evenly spaced slices do not depend on the truth: 2 of 12 are never corrected."""
    first = run(assessed, model, protocol())
    corrected = sorted(lessons[-1].slices)
    other = np.zeros_like(assessed.patient.lesions)
    other[corrected] = assessed.patient.lesions[corrected]
    patient = Patient(assessed.patient.name, assessed.patient.images, other)
    number = len(lessons)
    second = run(dataclasses.replace(assessed, patient=patient), model, protocol())
    for before, after in zip(lessons[:number], lessons[number:], strict=True):
        for part in ("learned", "held_out"):
            assert np.array_equal(getattr(before, part).masks, getattr(after, part).masks)
            assert getattr(before, part).ids == getattr(after, part).ids
    efforts = [
        [(p["corrected"], p["strokes"], p["clicks"]) for p in one["points"]] for one in (first, second)
    ]
    assert efforts[0] == efforts[1]
    assert [p["dice"] for p in first["points"]] != [p["dice"] for p in second["points"]]


@pytest.mark.parametrize("condition", ["none", "memory", "no-memory"])
def test_conditions(
    assessed: Assessed, model: Model, protocol: Make, lessons: list[Lesson], condition: str
) -> None:
    told = list(simulate(assessed, model, protocol(condition=condition, most=6)))
    points = [one for one in told if isinstance(one, Point)]
    corrected = [one.corrected for one in points]
    if condition == "none":
        assert corrected == [0, 1, 2, 3, 4, 5, 6]
        assert not lessons
        return
    assert corrected == [0, 1, 2, 3, 4, 5, 5, 6]  # once more after learning
    assert [one.versions for one in points] == [0, 0, 0, 0, 0, 0, 1, 1]
    memory = lessons[0].memory
    if condition == "no-memory":
        assert memory is None
    else:
        assert memory is not None
        assert np.array_equal(memory.images, assessed.memory)


def test_effort_only_grows_and_the_last_slice_is_left(
    assessed: Assessed, model: Model, protocol: Make
) -> None:
    points = list(simulate(assessed, model, protocol(condition="none", most=None)))
    assert [one.corrected for one in points if isinstance(one, Point)] == list(range(12))
    efforts = [(one.strokes, one.clicks) for one in points if isinstance(one, Point)]
    assert efforts == sorted(efforts, key=lambda both: sum(both))
    assert efforts[0] == (0, 0) < efforts[-1]


def test_the_work_ends_at_the_goal(assessed: Assessed, model: Model, protocol: Make) -> None:
    assert len(list(simulate(assessed, model, protocol(goal=0.0)))) == 1


def test_weights_that_are_no_better_change_nothing(
    assessed: Assessed, model: Model, protocol: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(model: Model, *rest: object) -> Iterator[FinetuneResult]:
        *_, result = real(model, *rest)  # type: ignore[arg-type]
        assert isinstance(result, FinetuneResult)
        yield dataclasses.replace(result, step=0, model=model)

    monkeypatch.setattr(effort, "finetune", refused)
    told = list(simulate(assessed, model, protocol(most=5)))
    before, one, after = told[-3:]
    assert isinstance(one, Round)
    assert one.forgotten == 0
    assert isinstance(before, Point) and isinstance(after, Point)
    assert (after.versions, after.unguided) == (
        0,
        before.unguided,
    )  # corrected slices guide others all the same


@pytest.mark.parametrize("restart", [False, True])
def test_a_fine_tuning_begins_with_the_current_version_or_restarts(
    assessed: Assessed, model: Model, protocol: Make, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    parents = []

    def spy(parent: Model, learned: LabelledSlices, *rest: object) -> Iterator[object]:
        parents.append(parent)
        yield from real(parent, learned, None, None, rest[-1])  # type: ignore[arg-type]

    monkeypatch.setattr(effort, "finetune", spy)
    list(simulate(assessed, model, protocol(restart=restart)))
    assert len(parents) == 2
    assert parents[0] is model
    assert (parents[1] is model) == restart


def test_a_record_is_json(assessed: Assessed, model: Model, protocol: Make) -> None:
    record = run(assessed, model, protocol(most=5))
    assert json.loads(json.dumps(record))["points"] == record["points"]
    assert (record["patient"], record["slices"]) == ("anna", 12)
    assert record["rounds"][0]["corrected"] == 5
