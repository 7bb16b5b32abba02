"""The list of revisions, and the way back to any of them."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.revision import Revision
from napari_covseg.panels.correct.history_step import RevisionTable, revision_text, slices_text
from napari_covseg.panels.dock import CovSegDock


@pytest.fixture
def dock(dock: CovSegDock) -> CovSegDock:
    dock.sections[4].toggleButton().click()
    return dock


def tools(dock: CovSegDock) -> list[str]:
    rows = dock.history.rows
    return [rows.revision(row).tool for row in range(rows.rowCount())]


def test_every_step_is_listed_shown_and_restored(
    dock: CovSegDock, case: OpenCase, qtbot: Any, tmp_path: Path
) -> None:
    lesions, step = dock.session.layers.labels["lesions"], dock.history
    lesions.brush_size, lesions.mode = 6, "paint"
    lesions.paint((5, 30, 30), 2)
    first = case.live["lesions"].copy()
    lesions.paint((7, 40, 40), 3)
    second = case.live["lesions"].copy()
    lesions.undo()
    lesions.redo()
    qtbot.waitUntil(lambda: tools(dock) == ["redo", "undo", "brush", "brush"])
    number = step.rows.revision(3).number

    step.choose(number)
    step.show_state.click()
    viewer = dock.session.viewer
    qtbot.waitUntil(lambda: any("after change" in layer.name for layer in viewer.layers))
    shown = viewer.layers[f"Lesions after change {number}"]
    assert np.array_equal(shown.data, first) and not lesions.visible
    step.show_state.click()
    assert lesions.visible and shown not in viewer.layers

    step.restore.click()
    assert np.array_equal(case.live["lesions"], first)
    qtbot.waitUntil(lambda: tools(dock)[0] == "restore")
    lesions.undo()
    assert np.array_equal(case.live["lesions"], second)
    qtbot.waitUntil(lambda: tools(dock)[0] == "undo")

    step.export_to(tmp_path / "history.csv")
    qtbot.waitUntil((tmp_path / "history.csv").exists)
    assert "restore" in (tmp_path / "history.csv").read_text(encoding="utf-8-sig")


def test_what_is_exported_is_what_is_listed_with_the_name_that_one_gives(
    dock: CovSegDock, case: OpenCase, qtbot: Any, tmp_path: Path
) -> None:
    step, lesions = dock.history, dock.session.layers.labels["lesions"]
    lesions.paint((5, 30, 30), 2)
    step.who.setText("  Ada Ö; =1 ")
    lesions.paint((7, 40, 40), 3)
    step.export_to(tmp_path / "history.csv")  # before the list has followed by itself
    assert step.rows.rowCount() == 2
    qtbot.waitUntil((tmp_path / "history.csv").exists)
    qtbot.waitUntil(lambda: len((tmp_path / "history.csv").read_text("utf-8-sig").splitlines()) == 3)
    with (tmp_path / "history.csv").open(encoding="utf-8-sig", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["number"] for row in written] == [str(one.number) for one in step.rows.revisions]
    assert [row["who"] for row in written] == ["user", "Ada Ö; =1"]
    listed = [step.rows.data(step.rows.index(row, 3)) for row in (1, 0)]
    assert [row["slices"] for row in written] == listed == ["6", "8"]
    case_id = case.id
    dock.workbench.opening.close()
    dock.workbench.opening.case(case_id)
    qtbot.waitUntil(lambda: dock.session.case is not None)
    assert dock.session.case.who == "Ada Ö; =1"


def test_a_revision_is_said_in_one_line() -> None:
    revision = Revision(3, datetime.now(UTC), "Ada", "brush", ("lesions",), (4, 5), 12)
    assert revision_text(revision).endswith("brush, lesions, 12 voxels, by Ada")
    assert [slices_text(s) for s in ((), (4,), (4, 9))] == ["", "5", "5–10"]
    table = RevisionTable()
    table.show([revision])
    assert table.data(table.index(0, 2)) == "brush" and table.row_of(3) == 0 and table.row_of(4) is None
