from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from napari import Viewer
from qtpy.QtWidgets import QFileDialog, QLineEdit

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.report.export_step import ExportStep, export_folder
from napari_covseg.scans import Scan

LONG = 170_000  # ms; the child has to load torch first


@pytest.fixture
def opened(
    workbench: tuple[Viewer, CovSegDock], add_scan: Callable[[Viewer, Scan], Any], scan: Scan, qtbot: Any
) -> ExportStep:
    viewer, dock = workbench
    assert not dock.export.save.isEnabled()
    add_scan(viewer, scan)
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    return dock.export


@pytest.fixture
def dock_around(opened: ExportStep, workbench: tuple[Viewer, CovSegDock]) -> CovSegDock:
    return workbench[1]


def test_labels_go_to_files_of_their_own(
    opened: ExportStep, tmp_path: Path, qtbot: Any, notified: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened.session
    session.layers.labels["lungs"].paint((5, 48, 28), 1)
    session.layers.labels["lesions"].paint((5, 48, 28), 3)
    assert "11 of 12 slices have no labels yet" in opened.hint.text()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(tmp_path / "p7.nii.gz"), ""))
    opened.browse.click()
    assert {path.name for path in opened.targets().values()} == {"p7_lungs.nii.gz", "p7_lesions.nii.gz"}
    assert opened.save.text() == "Export"
    opened.save.click()
    qtbot.waitUntil(lambda: bool(notified), timeout=LONG)
    assert "Saved" in notified[0]
    for group in ("lungs", "lesions"):
        image = sitk.ReadImage(str(tmp_path / f"p7_{group}.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(image), session.case.live[group])
        assert image.GetSpacing() == pytest.approx((3, 3, 10))
        assert image.GetOrigin() == pytest.approx((-140, -140, 0))

    # the same again would replace files, and says so
    assert opened.save.text() == "Export, replacing 4 files"  # the tables of names as well
    opened.groups["lungs"].click()
    opened.format.setCurrentIndex(1)
    assert opened.save.text() == "Export"
    assert [path.name for path in opened.targets().values()] == ["p7_lesions.nrrd"]
    opened.save.click()
    qtbot.waitUntil(lambda: len(notified) == 2, timeout=LONG)
    assert (tmp_path / "p7_lesions.nrrd").exists() and not (tmp_path / "p7_lungs.nrrd").exists()
    assert (tmp_path / "p7_lesions.tsv").read_text().splitlines()[1].startswith("1\tlesion\t#")
    assert export_folder() == tmp_path  # for the next case


def test_nothing_is_exported_into_the_folder_of_the_scan_by_itself(
    opened: ExportStep, case: OpenCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = case.case.header | {"path": str(tmp_path / "series" / "1.dcm")}
    monkeypatch.setattr(type(case.case), "header", header)
    (tmp_path / "series").mkdir()
    opened.session.case_changed.emit()
    assert opened.targets() and all(tmp_path not in path.parents for path in opened.targets().values())


def test_a_folder_that_is_not_there_is_told(
    opened: ExportStep, tmp_path: Path, qtbot: Any, notified: list[str]
) -> None:
    opened.path.setText(str(tmp_path / "nowhere" / "p7"))
    opened.save.click()
    qtbot.waitUntil(lambda: not opened.session.busy_with, timeout=LONG)
    assert len(notified) == 1 and "nowhere" in notified[0]
    assert opened.save.isEnabled()


@given(
    st.one_of(st.text(), st.sampled_from(["/", "//", "..", "~nobody-here/x", "/tmp/", ".nrrd", "a" * 300]))
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_text_can_be_typed_anywhere(opened: ExportStep, dock_around: CovSegDock, text: str) -> None:
    fields = dock_around.findChildren(QLineEdit)
    assert opened.path in fields and len(fields) >= 8
    for field in fields:
        field.setText(text)
        field.editingFinished.emit()
    assert opened.hint.text()
    if opened.save.isEnabled():
        assert all(path.name.endswith(f"_{group}.nii.gz") for group, path in opened.targets().items())


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "No space left"), (errno.EACCES, "Permission denied")]
)
def test_a_file_that_cannot_be_written_is_told(
    opened: ExportStep,
    tmp_path: Path,
    qtbot: Any,
    notified: list[str],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    words: str,
) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    opened.path.setText(str(tmp_path / "p7"))
    opened.save.click()
    qtbot.waitUntil(lambda: not opened.session.busy_with, timeout=LONG)
    assert len(notified) == 1 and not list(tmp_path.glob("p7*"))
    assert f"p7_lungs.nii.gz cannot be written ({words}" in notified[0] and "choose another" in notified[0]


def test_names_may_be_as_long_as_names_can_be(
    opened: ExportStep, tmp_path: Path, qtbot: Any, notified: list[str]
) -> None:
    longest = "p" * (255 - len("_lesions.nii.gz"))
    for name, sentence in (
        (longest, "saved"),
        (longest + "p", "name too long"),
        ("p" * 255, "name too long"),
    ):
        opened.path.setText(str(tmp_path / name))
        opened.save.click()
        qtbot.waitUntil(lambda: not opened.session.busy_with, timeout=LONG)
        assert sentence in notified[-1].lower()
    assert (tmp_path / f"{longest}_lesions.nii.gz").exists()


def test_nothing_chosen_is_nothing_to_export(opened: ExportStep) -> None:
    for check in opened.groups.values():
        check.setChecked(False)
    assert not opened.save.isEnabled() and not opened.targets()
