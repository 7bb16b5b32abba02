"""The strip of slices, and the way from one to the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from canvas_mouse import Mouse
from qtpy.QtCore import QPoint, Qt

from napari_covseg.cases.case import Review
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.errors import CaseError
from napari_covseg.panels.correct.review_strip import CELLS, COLOURS, ReviewStrip, cells
from napari_covseg.panels.correct.reviewing import SliceFacts
from napari_covseg.panels.dock import CovSegDock


@pytest.fixture
def dock(dock: CovSegDock) -> CovSegDock:
    dock.sections[3].toggleButton().click()
    return dock


def colour(strip: ReviewStrip, z: int) -> tuple[int, int, int]:
    picture = strip.grab().toImage()
    pixel = picture.pixelColor(round(strip.place_of(z)), strip.height() - 1)
    return pixel.red(), pixel.green(), pixel.blue()


def test_the_strip_shows_states_and_goes_where_one_clicks(
    dock: CovSegDock, case: OpenCase, qtbot: Any
) -> None:
    strip = dock.correct.review.strip
    lesions = dock.session.layers.labels["lesions"]
    lesions.paint((7, 50, 30), 2)
    case.set_review(4, Review.ACCEPTED)
    dock.session.mark_changed([4])
    qtbot.waitUntil(lambda: colour(strip, 7) == COLOURS[Review.CORRECTED])
    assert colour(strip, 4) == COLOURS[Review.ACCEPTED]
    assert colour(strip, 1) == COLOURS[Review.UNTOUCHED]
    assert "1&nbsp;accepted" in dock.correct.review.counts.text()
    where = QPoint(round(strip.place_of(9)), 20)
    qtbot.mouseClick(strip, Qt.MouseButton.LeftButton, pos=where)
    assert dock.session.slice_on_screen == 9
    assert strip.describe(7).startswith("Slice 8: corrected")


def test_accept_goes_on_past_what_was_reviewed_unless_one_likes_to_stay(
    dock: CovSegDock, case: OpenCase, qtbot: Any
) -> None:
    row, seen = dock.correct.review, [dock.session.slice_on_screen]
    for _ in range(4):
        row.accept.click()  # goes on to the next one
        seen.append(dock.session.slice_on_screen)
    assert len(set(seen)) == 5
    assert [int(case.review[z]) for z in seen[:-1]] == [Review.ACCEPTED] * 4
    row.stay.click()
    row.accept.click()
    assert dock.session.slice_on_screen == seen[-1] and case.review[seen[-1]] == Review.ACCEPTED
    row.back.click()
    assert dock.session.slice_on_screen == seen[-2]
    assert row.reopen.isEnabled() and not row.accept.isEnabled()
    row.reopen.click()
    assert case.review[seen[-2]] == Review.UNTOUCHED


def test_the_rest_is_accepted_as_far_as_somebody_looked_at_it(
    dock: CovSegDock, case: OpenCase, mouse: Mouse, notified: list[str], qtbot: Any
) -> None:
    dims, first = dock.session.viewer.dims, dock.session.slice_on_screen
    for z in (2, 3):
        dims.set_current_step(0, z)
    dims.ndisplay = 3
    dims.set_current_step(0, 9)  # in 3-D nobody sees a slice
    dock.correct.review.rest.click()
    assert np.flatnonzero(case.review == Review.ACCEPTED).tolist() == [2, 3, first]
    assert notified[-1].startswith("3 slices accepted. 9 were not on screen")
    dims.ndisplay = 2
    for z in range(len(case.review)):
        dims.set_current_step(0, z)
    qtbot.keyClick(mouse.canvas, "a", Qt.KeyboardModifier.AltModifier)
    assert (case.review == Review.ACCEPTED).all() and notified[-1] == "9 slices accepted."


def test_accepting_twice_is_accepting_once(
    dock: CovSegDock, case: OpenCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviewing, accepted = dock.workbench.reviewing, []
    reviewing.accepted.connect(accepted.append)
    reviewing.stay = True
    z, before = dock.session.slice_on_screen, case.revision
    for _ in range(3):
        reviewing.accept()
    assert accepted == [z] and case.revision == before + 1

    def fail(z: int, state: Review) -> None:
        raise CaseError("The case is closed.")

    monkeypatch.setattr(case, "set_review", fail)
    dock.session.viewer.dims.set_current_step(0, 2)
    reviewing.accept()
    assert accepted == [z]


def test_the_models_findings_can_be_seen_instead(dock: CovSegDock, case: OpenCase, qtbot: Any) -> None:
    run = case.case.begin_prediction("m", {}, ("lungs", "lesion"), 0, probabilities=False)
    found = np.zeros(case.voxels.shape[1:], np.uint8)
    found[50:60, 20:30] = 1
    for z in range(12):
        run.write_slice(z, found * 0, found, entropy=60.0 + z)
    viewer, lesions = dock.session.viewer, dock.session.layers.labels["lesions"]
    dock.correct.review.compare.click()
    layer = dock.workbench.reviewing.model_layer
    assert layer in viewer.layers and not lesions.visible
    viewer.dims.set_current_step(0, 3)
    assert np.array_equal(layer.data[3], found)
    dock.correct.review.compare.click()
    assert layer not in viewer.layers and lesions.visible
    # its doubts are the curve of the strip
    dock.session.busy_changed.emit("")
    facts = dock.workbench.reviewing.facts
    qtbot.waitUntil(lambda: bool(np.isfinite(facts.entropy).all()))
    assert (np.diff(facts.entropy) > 0).all()


def test_facts_are_counted_again_only_where_something_changed(case: OpenCase) -> None:
    facts = SliceFacts(case)
    case.live["lesions"][3:5, 10:20, 10:20] = 1
    facts.recount([3])
    assert facts.area[3] == 100 and facts.area[4] == 0
    facts.recount([4])
    assert facts.area[4] == 100 and facts.disagreement[3] == 0 and facts.disagreement[2] == 100


def test_a_picture_of_states_has_a_bar_of_its_own_height_for_each() -> None:
    states = np.array([3, 0, 1, 2, 4], np.uint8)
    picture = cells(states)
    assert (picture.width(), picture.height()) == (5, CELLS)
    columns = [[picture.pixelColor(z, y).getRgb()[:3] for y in range(CELLS)] for z in range(5)]
    heights = {
        Review(int(state)): cell.count(COLOURS[state]) for state, cell in zip(states, columns, strict=True)
    }
    assert [heights[state] for state in COLOURS] == [2, 5, 8, 11, 14]
