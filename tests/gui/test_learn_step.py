"""The Learn step against a child that the test plays itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication, QWidget

from napari_covseg.cases.case import Review
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace_models import LearnedFrom, ModelState, WorkspaceModels
from napari_covseg.jobs.events import Failed, Finished, ModelProposed, Notice, SlicesDone, TrainingStep
from napari_covseg.jobs.requests import REFINE_PRIORITY, Finetune, Predict, Refine
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.learn.learn_step import outline, scores_text
from napari_covseg.panels.learn.learning import corrected_cases
from napari_covseg.scans import Scan

SCORES = {"held-out": {"before": {"lesion": 0.6}, "after": {"lesion": 0.8}}}


class Child:
    """Keeps what is asked of it; the test answers."""

    def __init__(self, dock: CovSegDock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, Callable[[Any], None], int]] = []
        self.cancelled: list[int] = []
        work = dock.workbench.jobs
        monkeypatch.setattr(work, "submit", self.submit)
        monkeypatch.setattr(work, "cancel", self.cancelled.append)

    def submit(self, request: Any, handler: Callable[[Any], None], priority: int = 0) -> int:
        self.asked.append((request, handler, priority))
        return len(self.asked)

    def of(self, kind: type) -> list[tuple[Any, Callable[[Any], None], int]]:
        return [asked for asked in self.asked if isinstance(asked[0], kind)]


@pytest.fixture
def dock(dock: CovSegDock) -> CovSegDock:
    dock.sections[5].toggleButton().click()
    return dock


@pytest.fixture
def child(dock: CovSegDock, case: OpenCase, monkeypatch: pytest.MonkeyPatch) -> Child:
    return Child(dock, monkeypatch)


def version(dock: CovSegDock, case: OpenCase) -> str:
    """Keep a version as the child does; its weights do not matter here."""
    versions, base = WorkspaceModels(dock.session.workspace), dock.workbench.learning.base
    made = versions.add(
        base,
        base,
        lambda version_id: (b"weights", "{}"),
        scores=SCORES,
        learned_from={case.id: LearnedFrom(1, (3, 4), (5,))},
    )
    return made.id


def windows(dock: CovSegDock) -> list[QWidget]:
    """Windows on the screen beside the viewer's."""
    return [
        window
        for window in QApplication.topLevelWidgets()
        if window.isVisible() and not window.isAncestorOf(dock)
    ]


def propose(dock: CovSegDock, case: OpenCase, child: Child, qtbot: Any, *, recommended: bool = True) -> str:
    learn = dock.learn
    if not child.of(Finetune):
        learn.start.click()
    qtbot.waitUntil(lambda: bool(child.of(Finetune)))
    request, hear, _ = child.of(Finetune)[-1]
    assert request.cases == (case.id,) and request.model == dock.workbench.learning.in_use
    for step in range(4):
        held_out = {"lesion": 0.6 + step / 20} if step % 3 == 0 else None
        hear(TrainingStep(step, 30, 1 / step if step else None, 0.5 * step, held_out, step == 3))
    name = version(dock, case)
    hear(ModelProposed(name, request.model, SCORES, recommended, "It is better."))
    hear(Finished())
    return name


def test_nothing_to_learn_from_is_said(dock: CovSegDock, case: OpenCase) -> None:
    assert not dock.learn.start.isEnabled()
    assert "Correct or accept" in dock.learn.status.text()
    dock.session.layers.labels["lesions"].paint((5, 56, 28), 1)
    assert dock.learn.start.isEnabled() and "1 slice of this case" in dock.learn.status.text()


def test_learn_compare_keep_and_roll_back(dock: CovSegDock, case: OpenCase, child: Child, qtbot: Any) -> None:
    learn, learning = dock.learn, dock.workbench.learning
    lesions = dock.session.layers.labels["lesions"]
    lesions.brush_size = 8
    for z in (3, 4, 5):
        lesions.paint((z, 56, 28), 1)
    learn.start.click()
    assert learn.cancel.isEnabled() and not learn.start.isEnabled()
    base = learning.base
    name = propose(dock, case, child, qtbot)
    assert learn.curves.isVisible() and learn.curves.steps == [1, 2, 3]
    assert windows(dock) == []
    assert learn.curves.dice["lesion"] == [(0, 0.6), (3, 0.75)] and learn.curves.best == 3
    assert learn.proposal.isVisible() and "0.800" in learn.proposal.scores.text()

    # three slices, those that decided first, from both models
    asked = child.of(Refine)
    assert [(r.z, r.model) for r, _, _ in asked] == [(z, m) for z in (5, 3, 4) for m in (base, name)]
    assert all(priority == REFINE_PRIORITY for _, _, priority in asked)
    run = case.case.begin_prediction("m", {"refined": 5}, ("lungs", "lesion"), 0, probabilities=False)
    run.write_slice(5, np.zeros_like(case.live["lungs"][5]), case.live["lesions"][5])
    asked[1][1](SlicesDone(run.id, (5,)))
    assert learn.proposal.slices.notes[0].text() == "6: 1.00"
    assert not learn.proposal.slices.pictures[1][0].pixmap().isNull()

    learn.proposal.keep.click()
    assert learning.in_use == name and not learn.proposal.isVisible()
    qtbot.waitUntil(lambda: bool(child.of(Predict)))
    predict, hear, _ = child.of(Predict)[-1]
    assert predict.model == name and predict.first_slice == dock.session.slice_on_screen
    hear(Finished())
    qtbot.waitUntil(lambda: not dock.session.busy_with)

    learn.version.setCurrentIndex(0)
    learn.use.click()
    assert learning.in_use == base and not learn.use.isEnabled()


def test_models_with_other_findings_are_compared_by_a_label_that_they_know(
    dock: CovSegDock, case: OpenCase, child: Child, qtbot: Any
) -> None:
    learning = dock.workbench.learning
    known = learning.model
    card = replace(known.card, id="kinds", outputs=("lungs", "ground-glass", "consolidation"))
    learning.choose(replace(known, card=card), "cpu")
    dock.session.layers.labels["lesions"].paint((5, 56, 28), 2)
    propose(dock, case, child, qtbot)
    assert [r.label for r, _, _ in child.of(Refine)] == [2] * 6


def test_a_version_that_nobody_decided_about_is_offered_again(
    dock: CovSegDock, case: OpenCase, child: Child
) -> None:
    learn, learning = dock.learn, dock.workbench.learning
    name, thrown_away = version(dock, case), version(dock, case)
    versions = WorkspaceModels(dock.session.workspace)
    versions.discard(thrown_away)
    dock.session.use_workspace(dock.session.workspace.path)
    shown = [learn.version.itemText(row) for row in range(learn.version.count())]
    assert len(shown) == 2 and shown[1].startswith(name) and shown[1].endswith("proposed")
    learn.version.setCurrentIndex(1)
    learn.use.click()
    assert learning.in_use == name and versions.get(name).state == ModelState.KEPT
    assert not learn.version.itemText(1).endswith("proposed")


def test_a_version_can_be_discarded(dock: CovSegDock, case: OpenCase, child: Child, qtbot: Any) -> None:
    dock.session.layers.labels["lesions"].paint((5, 56, 28), 1)
    name = propose(dock, case, child, qtbot)
    base = dock.workbench.learning.base
    assert dock.learn.version.count() == 1  # one decides about it here, not in the list
    dock.learn.proposal.discard.click()
    assert dock.workbench.learning.in_use == base and not dock.learn.proposal.isVisible()
    assert WorkspaceModels(dock.session.workspace).get(name).state == ModelState.DISCARDED
    assert dock.learn.version.count() == 1


def test_stopping_and_failing(
    dock: CovSegDock, case: OpenCase, child: Child, qtbot: Any, notified: list[str]
) -> None:
    dock.session.layers.labels["lesions"].paint((5, 56, 28), 1)
    dock.learn.start.click()
    qtbot.waitUntil(lambda: bool(child.of(Finetune)))
    dock.learn.cancel.click()
    assert child.cancelled == [1]
    hear = child.asked[0][1]
    hear(Notice("Nothing was better."))
    hear(Failed("It broke.", True))
    assert notified == ["Nothing was better.", "It broke."]
    assert dock.learn.start.isEnabled()


@pytest.mark.parametrize("recommended", [True, False])
def test_it_learns_as_one_goes(
    dock: CovSegDock, case: OpenCase, child: Child, qtbot: Any, recommended: bool
) -> None:
    dock.learn.by_itself.click()
    dock.learn.every.setValue(2)
    for z in (4, 5):
        assert not child.of(Finetune)
        dock.session.viewer.dims.set_current_step(0, z)
        dock.correct.review.accept.click()
    name = propose(dock, case, child, qtbot, recommended=recommended)
    assert not dock.learn.proposal.isVisible()
    assert (dock.workbench.learning.in_use == name) == recommended


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_version_labels_no_other_case_than_the_one_it_was_made_for(
    dock: CovSegDock, case: OpenCase, child: Child, scan: Scan, qtbot: Any, by_itself: bool
) -> None:
    session, learning = dock.session, dock.workbench.learning
    session.layers.labels["lesions"].paint((5, 56, 28), 1)
    learning.start(all_cases=False, seconds=1, by_itself=by_itself)
    qtbot.waitUntil(lambda: bool(child.of(Finetune)))
    other = session.workspace.add_case(scan)
    dock.workbench.opening.case(other)
    qtbot.waitUntil(lambda: session.case.id == other and not session.busy_with, timeout=60_000)
    name = propose(dock, case, child, qtbot)
    if not by_itself:
        dock.learn.proposal.keep.click()
    assert learning.in_use == name
    assert not session.busy_with and not child.of(Predict)


def test_a_slice_is_refined_with_strokes_as_hints(
    dock: CovSegDock, case: OpenCase, child: Child, qtbot: Any, notified: list[str]
) -> None:
    viewer, lesions = dock.session.viewer, dock.session.layers.labels["lesions"]
    viewer.layers.selection.active = lesions
    viewer.dims.set_current_step(0, 5)
    case.live["lungs"][5, 30:70, 20:40], case.live["lungs"][5, 30:70, 60:80] = 1, 2
    sides = case.live["lungs"].copy()
    dock.correct.refine.click()
    assert not child.asked and "strokes" in notified[-1]
    lesions.selected_label, lesions.brush_size = 1, 3
    lesions.paint((5, 56, 28), 1)
    case.live["lesions"][5, 20:24, 60:64] = 1
    lesions.paint((5, 22, 62), 0)
    before = case.live["lesions"].copy()
    dock.correct.refine.click()
    request, hear, priority = child.of(Refine)[0]
    assert priority == REFINE_PRIORITY and request.positive[56, 28] and request.negative[22, 62]
    assert not (request.positive & request.negative).any()
    run = case.case.begin_prediction("m", {"refined": 5}, ("lungs", "lesion"), 0, probabilities=False)
    found = np.zeros_like(case.live["lesions"][5])
    found[50:62, 22:34] = 1
    run.write_slice(5, (sides[5] > 0) * np.uint8(3), found)  # one slice does not tell right from left
    hear(SlicesDone(run.id, (5,)))
    after = case.live["lesions"][5]
    assert (after[50:62, 22:34] == 1).all() and after[22, 62] == 0 and case.review[5] == Review.CORRECTED
    assert np.array_equal(case.live["lungs"], sides)
    assert not after[20, 60]
    lesions.undo()
    assert np.array_equal(case.live["lesions"], before)


def test_cases_with_corrections(dock: CovSegDock, case: OpenCase, scan: Scan) -> None:
    workspace = dock.session.workspace
    bare, corrected = workspace.add_case(scan), workspace.add_case(scan)
    with OpenCase(workspace, corrected) as other:
        other.set_review(2, Review.ACCEPTED)
    assert corrected_cases(workspace, case.id) == (case.id, corrected)
    assert bare not in corrected_cases(workspace, case.id)


def test_scores_and_outlines() -> None:
    said = scores_text(ModelProposed("v", "m", SCORES, False, "It forgot."))
    assert "0.600" in said and "Better not: It forgot." in said
    mask = np.zeros((6, 6), bool)
    mask[1:5, 1:5] = True
    assert outline(mask).sum() == 12 and not outline(mask)[2:4, 2:4].any()
