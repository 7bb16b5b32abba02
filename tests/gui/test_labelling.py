"""A run's slices in the layers, without a child: the test writes the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from napari import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_covseg.cases.case import Review, Touch
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.prediction import Prediction
from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.events import (
    Cancelled,
    Event,
    Failed,
    Finished,
    Notice,
    PredictionStarted,
    SlicesDone,
    VolumeDone,
)
from napari_covseg.panels.case_layers import CaseLayers
from napari_covseg.panels.segment.labelling import BACKLOG, PredictionMerger
from napari_covseg.scans import Scan

SLICES = tuple(range(12))


@pytest.fixture
def case(scan: Scan) -> Iterator[OpenCase]:
    workspace = Workspace.open()
    opened = OpenCase(workspace, workspace.add_case(scan))
    yield opened
    opened.close()


@pytest.fixture
def layers(make_napari_viewer: Any, case: OpenCase) -> CaseLayers:
    viewer: Viewer = make_napari_viewer()
    return CaseLayers(viewer, case, lambda slices: None)


class Job:
    """A child's job: writes a run and tells of it."""

    def __init__(self, case: OpenCase, hear: Callable[[Event], None]) -> None:
        self.case = case
        self.hear = hear
        self.run: Prediction = case.case.begin_prediction(
            "m", {}, ("lungs", "lesion"), 0, probabilities=False
        )
        hear(PredictionStarted(self.run.id))

    def label(self, slices: tuple[int, ...]) -> None:
        """Label the lungs, side undetermined, and a lesion."""
        for z in slices:
            lungs = np.where(self.case.voxels[z] == -850, 3, 0).astype(np.uint8)
            self.run.write_slice(z, lungs, (self.case.voxels[z] == 0).astype(np.uint8), None)
        self.hear(SlicesDone(self.run.id, slices))

    def tell_sides_apart(self) -> None:
        for z in SLICES:
            lungs, _ = self.run.read_slice(z)
            lungs[:, :48][lungs[:, :48] > 0] = 1
            lungs[:, 48:][lungs[:, 48:] > 0] = 2
            self.run.write_final("lungs", z, lungs)
        self.hear(VolumeDone(self.run.id))
        self.hear(Finished())


@pytest.fixture
def prediction(case: OpenCase, layers: CaseLayers) -> PredictionMerger:
    return PredictionMerger(case, layers.add_model_step)


def values(layer: Any) -> set[int]:
    return set(np.unique(layer.data).tolist())


def test_the_last_pass_is_one_step_that_can_be_undone(
    case: OpenCase, layers: CaseLayers, prediction: PredictionMerger, qtbot: Any
) -> None:
    job = Job(case, prediction.on_event)
    changed: list[int] = []
    prediction.slices_changed.connect(changed.extend)
    job.label(SLICES)
    qtbot.waitUntil(lambda: (case.review == Review.PREDICTED).all())
    assert changed == list(range(1, 11))  # the first and the last slice have no lungs
    lungs, lesions = layers.labels["lungs"], layers.labels["lesions"]
    assert values(lungs) == {0, 3}
    before = lungs.data.copy()

    with qtbot.waitSignal(prediction.ended) as ended:
        job.tell_sides_apart()
    assert ended.args == [""]
    assert values(lungs) == {0, 1, 2}
    after = lungs.data.copy()

    lungs.undo()
    assert np.array_equal(lungs.data, before)
    assert values(lesions) == {0, 1}  # which the last pass did not change
    assert not case.touched["lungs"].any()
    assert (case.review == Review.PREDICTED).all()
    case.flush()
    assert np.array_equal(case.case.labels("lungs")[:], before)
    lungs.redo()
    case.flush()
    assert np.array_equal(case.case.labels("lungs")[:], after)
    lungs.undo()
    lungs.undo()  # nothing before it was a step
    assert np.array_equal(lungs.data, before)


def test_what_came_late_is_not_emptied_by_undoing(
    case: OpenCase, layers: CaseLayers, prediction: PredictionMerger, qtbot: Any
) -> None:
    job = Job(case, prediction.on_event)
    job.label(SLICES)
    with qtbot.waitSignal(prediction.ended):
        job.tell_sides_apart()  # before the viewer had a moment for the slices
    lungs = layers.labels["lungs"]
    assert values(lungs) == {0, 1, 2}
    lungs.undo()
    assert values(lungs) == {0, 1, 2}


def test_a_persons_strokes_stay_in_every_pass(
    case: OpenCase, layers: CaseLayers, prediction: PredictionMerger, qtbot: Any
) -> None:
    lungs, lesions = layers.labels["lungs"], layers.labels["lesions"]
    lungs.brush_size = lesions.brush_size = 6
    lungs.data_setitem((np.array([5]), np.array([48]), np.array([28])), 2)  # on the wrong side, on purpose
    job = Job(case, prediction.on_event)
    job.label(SLICES)
    qtbot.waitUntil(lambda: (case.review != Review.UNTOUCHED).all())
    lesions.paint((5, 56, 28), 0)  # erase in what has just come
    erased = case.touched["lesions"] == Touch.PERSON
    assert erased.sum() > 10
    with qtbot.waitSignal(prediction.ended):
        job.tell_sides_apart()
    assert lungs.data[5, 48, 28] == 2 and lungs.data[5, 48, 27] == 1
    assert not lesions.data[erased].any() and lesions.data[6][erased[5]].all()
    assert case.review[5] == Review.CORRECTED


@pytest.mark.parametrize(("end", "told"), [(Cancelled(), ""), (Failed("It broke.", False), "It broke.")])
def test_an_early_end_keeps_what_is_done(
    case: OpenCase, layers: CaseLayers, prediction: PredictionMerger, qtbot: Any, end: Event, told: str
) -> None:
    job = Job(case, prediction.on_event)
    job.label((4, 5, 6))
    with qtbot.waitSignal(prediction.ended) as ended:
        prediction.on_event(end)
    assert ended.args == [told]
    assert np.flatnonzero(case.review).tolist() == [4, 5, 6]


def test_slices_of_which_a_dead_child_could_not_tell(
    case: OpenCase, layers: CaseLayers, prediction: PredictionMerger, qtbot: Any
) -> None:
    job = Job(case, prediction.on_event)
    job.label((4, 5))
    told, job.hear = job.hear, lambda event: None
    job.label((6, 7))
    with qtbot.waitSignal(prediction.ended):
        told(Failed("The process ended.", True))
    assert np.flatnonzero(case.review).tolist() == [4, 5, 6, 7]


def test_a_damaged_run_is_told_once(
    case: OpenCase, layers: CaseLayers, prediction: PredictionMerger, qtbot: Any
) -> None:
    prediction.on_event(PredictionStarted("there-is-none"))
    failures: list[str] = []
    prediction.failed.connect(failures.append)
    prediction.on_event(SlicesDone("there-is-none", (3, 4, 5)))
    with qtbot.waitSignal(prediction.ended):
        prediction.on_event(Cancelled())
    assert len(failures) == 1 and "there-is-none" in failures[0]


def test_nothing_is_heard_after_abandoning(
    case: OpenCase, layers: CaseLayers, prediction: PredictionMerger, qtbot: Any
) -> None:
    job = Job(case, prediction.on_event)
    prediction.abandon()
    heard: list[Any] = []
    for signal in (prediction.noticed, prediction.ended, prediction.slices_changed):
        signal.connect(heard.append)
    job.label((4, 5))
    prediction.on_event(Notice("x"))
    prediction.on_event(Finished())
    QApplication.processEvents()
    assert not heard and not case.review.any() and not prediction.findChild(QTimer).isActive()


def test_merging_waits_for_the_disk_so_that_memory_stays_low(
    case: OpenCase, prediction: PredictionMerger, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, looked = BACKLOG, []

    def backlog(case: OpenCase) -> int:
        looked.append(case)
        return waiting

    monkeypatch.setattr(OpenCase, "backlog", property(backlog))
    Job(case, prediction.on_event).label(SLICES)
    qtbot.waitUntil(lambda: len(looked) > 3)
    assert (case.review == Review.UNTOUCHED).all()
    waiting = 0
    qtbot.waitUntil(lambda: bool((case.review == Review.PREDICTED).all()))
