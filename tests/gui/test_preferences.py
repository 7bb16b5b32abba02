"""What a person likes is there again when the viewer is started again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from napari.settings import get_settings

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.edit.hu_range import PRESETS, HuRange
from napari_covseg.labels import painted_with
from napari_covseg.panels.correct.correction import kept_range
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.preferences import prefer, preferences_file, preferred


def test_brush_mouse_and_accept_are_those_of_the_last_time(
    dock: CovSegDock, case: OpenCase, make_napari_viewer: Any, qtbot: Any
) -> None:
    dock.correct.size.setValue(24)
    dock.correct.low.setValue(-720)
    dock.scan.radiology_mouse.click()
    dock.correct.review.stay.click()
    case_id, high = case.id, dock.correct.high.value()
    dock.workbench.close()
    viewer = make_napari_viewer(show=True)
    _, again = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
    assert again.scan.radiology_mouse.isChecked() and again.workbench.mouse.enabled
    assert again.correct.review.stay.isChecked() and again.workbench.reviewing.stay
    assert (again.correct.low.value(), again.correct.high.value()) == (-720, high)
    again.workbench.opening.case(case_id)
    qtbot.waitUntil(lambda: again.session.case is not None)
    assert again.workbench.correction.brush_mm == 24
    assert {layer.brush_size for layer in again.session.layers.labels.values()} == {8}  # pixels of 3 mm


def test_the_first_label_is_what_the_model_writes(dock: CovSegDock, case: OpenCase, qtbot: Any) -> None:
    lesions, learning = dock.session.layers.labels["lesions"], dock.workbench.learning
    known, case_id = learning.model, case.id
    assert lesions.selected_label == painted_with(known.card.outputs) == 2
    card = replace(known.card, id="union", outputs=("lungs", "lesion"))
    learning.choose(replace(known, card=card), "cpu")
    assert lesions.selected_label == 1
    dock.workbench.correction.choose_label(4)
    learning.changed.emit()  # nothing new: what a person chose stays
    assert lesions.selected_label == 4
    dock.workbench.opening.close()
    dock.workbench.opening.case(case_id)
    qtbot.waitUntil(lambda: dock.session.case is not None)
    assert dock.session.layers.labels["lesions"].selected_label == 1


@pytest.mark.parametrize(
    ("outputs", "value"),
    [
        (("lungs", "lesion"), 1),
        (("ground-glass", "consolidation"), 2),
        (("pleural effusion",), 4),
        (("lungs",), 0),
    ],
)
def test_what_a_model_writes_most(outputs: tuple[str, ...], value: int) -> None:
    assert painted_with(outputs) == value


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"brush_hu": [1], "accept_stays": "yes"}', '{"brush_hu": [5, "x"]}']
)
def test_a_damaged_file_is_as_none(text: str) -> None:
    preferences_file().write_text(text)
    assert kept_range() == next(iter(PRESETS.values())) and preferred("accept_stays", False) is False
    prefer("brush_hu", [-700, -200])
    assert kept_range() == HuRange(-700, -200)


def test_a_disk_that_takes_nothing_only_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COVSEG_PREFERENCES", str(tmp_path / "file" / "preferences.json"))
    prefer("accept_stays", True)
    assert preferred("accept_stays", False) is False


def test_tests_read_and_write_no_settings_of_a_person() -> None:
    assert get_settings().config_path is None
