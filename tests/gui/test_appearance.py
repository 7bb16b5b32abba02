"""What a scan looks like: said in the Scan step, overruled there, and asked twice in the Segment step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from napari import Viewer

from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.requests import Predict
from napari_covseg.models.preparation import Preparation, as_shown
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.scan.appearance import AS_IT_LOOKS, AppearancePart
from napari_covseg.scans import Scan
from napari_covseg.scans.appearance import LUNG_WINDOW
from phantom import phantom

LONG = 170_000  # ms
AddScan = Callable[[Viewer, Scan], Any]


@pytest.fixture(scope="module")
def picture() -> Scan:
    """A phantom's slice in a lung window, inverted and turned by 90 degrees."""
    made = phantom(seed=1007, shape=(9, 160, 160), spacing=(35.0, 2.2, 2.2)).scan
    low, high = LUNG_WINDOW
    grey = (np.clip(made.voxels[4], low, high) - low) * (255 / (high - low))
    return as_picture(np.rot90(255 - grey.astype(np.int16))[None], made)


def as_picture(voxels: np.ndarray[Any, Any], of: Scan) -> Scan:
    voxels = np.ascontiguousarray(voxels, np.int16)
    plain = np.eye(4)
    return replace(
        of,
        voxels=voxels,
        spacing=None,
        intensity="grey",
        affine=plain,
        source_shape=voxels.shape,
        source_affine=plain,
        name="a picture",
        notes=(),
    )


def opened(workbench: tuple[Viewer, CovSegDock], add_scan: AddScan, scan: Scan, qtbot: Any) -> CovSegDock:
    viewer, dock = workbench
    add_scan(viewer, scan)
    qtbot.waitUntil(lambda: dock.session.case is not None and not dock.session.busy_with, timeout=LONG)
    return dock


def choose(part: AppearancePart, name: str, value: Any) -> None:
    """Choose an entry as a person does."""
    box = part.boxes[name]
    box.setCurrentIndex(box.findData(value))
    box.activated.emit(box.currentIndex())


def test_a_picture_is_described_and_can_be_said_to_be_otherwise(
    workbench: tuple[Viewer, CovSegDock],
    add_scan: AddScan,
    picture: Scan,
    workspace_folder: Path,
    qtbot: Any,
) -> None:
    part = workbench[1].scan.appearance
    assert not part.isVisible()  # nothing is open
    dock = opened(workbench, add_scan, picture, qtbot)
    part.otherwise.click()
    text = part.sentences.text()
    assert "chest CT" in text and "turned by 90°" in text and "inverted" in text
    assert all(box.isVisible() and box.currentText().startswith(AS_IT_LOOKS) for box in part.boxes.values())

    assert part.boxes["turned"].currentText().endswith("90° counter-clockwise")

    choose(part, "turned", 180)
    choose(part, "inverted", False)
    assert "turned by 180°" in part.sentences.text() and "inverted" not in part.sentences.text()
    case_id = dock.session.case.id
    on_disk = Workspace.open(workspace_folder).case(case_id)
    assert on_disk.overrides == {"turned": 180, "inverted": False}
    assert (on_disk.appearance.turned, on_disk.appearance.inverted) == (180, False)

    # closed and opened again it is still what the person said, and can become what was found
    dock.workbench.opening.close()
    assert not part.isVisible()
    dock.workbench.opening.case(case_id)
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    assert (
        part.boxes["turned"].currentText() == "upside down" and part.boxes["inverted"].currentText() == "no"
    )
    choose(part, "turned", None)
    choose(part, "inverted", None)
    assert part.sentences.text() == text
    assert Workspace.open(workspace_folder).case(case_id).overrides == {}


def test_what_the_model_sees_follows_the_slice_and_goes_with_the_case(
    workbench: tuple[Viewer, CovSegDock], add_scan: AddScan, picture: Scan, qtbot: Any
) -> None:
    two = replace(picture, voxels=np.concatenate([picture.voxels, picture.voxels[:, ::-1]]))
    two = as_picture(two.voxels, two)
    dock = opened(workbench, add_scan, two, qtbot)
    view = dock.scan.appearance.model_view
    layers = list(dock.session.viewer.layers)
    dock.scan.appearance.show_model.click()
    assert view.isVisible() and list(dock.session.viewer.layers) == layers

    def drawn() -> np.ndarray[Any, Any]:
        image = view.picture.pixmap().toImage()
        pixels = image.scaled(64, 64)
        return np.array([[pixels.pixelColor(x, y).red() for x in range(64)] for y in range(64)])

    def expected(z: int) -> np.ndarray[Any, Any]:
        preparation = Preparation.from_card(dock.workbench.learning.model.card.preparation)
        shown = as_shown(two.voxels[z], dock.session.case.appearance, preparation)
        side = len(shown) // 64
        return shown.reshape(64, side, 64, side).mean((1, 3))

    seen = []
    for z in (0, 1):
        dock.session.viewer.dims.set_current_step(0, z)
        assert f"Slice {z + 1} as" in view.caption.text()
        seen.append(drawn())
        assert np.corrcoef(seen[z].ravel(), expected(z).ravel())[0, 1] > 0.8
    assert np.abs(seen[0] - seen[1]).mean() > 5
    assert "turned upright" in view.caption.text() and "air made black" in view.caption.text()
    choose(dock.scan.appearance, "inverted", False)
    assert "air made black" not in view.caption.text()
    assert np.abs(seen[1] - drawn()).mean() > 5

    dock.workbench.opening.close()
    assert not view.isVisible()


def test_of_a_scan_in_hu_only_the_kind_can_be_said(dock: CovSegDock) -> None:
    part = dock.scan.appearance
    part.otherwise.click()
    assert [name for name, box in part.boxes.items() if box.isVisible()] == ["kind"]
    assert "This is an axial chest CT" in part.sentences.text()


def test_a_case_that_is_only_looked_at_cannot_be_said_to_be_otherwise(
    workbench: tuple[Viewer, CovSegDock], picture: Scan, workspace_folder: Path, qtbot: Any
) -> None:
    workspace = Workspace.open(workspace_folder)
    case_id = workspace.add_case(picture)
    lock = workspace.case(case_id).lock()
    dock = workbench[1]
    dock.workbench.opening.case(case_id)
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    for box in dock.scan.appearance.boxes.values():
        assert not box.isEnabled() and dock.session.case.held_by in box.toolTip()
    lock.release()


def test_what_is_no_chest_ct_is_labelled_only_at_the_second_click(
    workbench: tuple[Viewer, CovSegDock],
    add_scan: AddScan,
    picture: Scan,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blank = as_picture(np.full((1, 64, 64), 100), picture)
    dock = opened(workbench, add_scan, blank, qtbot)
    step, session = dock.segment, dock.session
    asked: list[Predict] = []
    monkeypatch.setattr(dock.workbench.jobs, "submit", lambda request, hear, *_: asked.append(request) or 1)

    assert session.scan_image().name == "Blank a picture"
    assert "There is nothing in it" in dock.scan.appearance.sentences.text()
    step.run.click()
    assert not session.busy_with and not asked
    assert "a picture: There is nothing in it" in step.refusal.text() and step.refusal.isVisible()
    assert step.run.text() == "Label it anyway" and step.run.isEnabled()

    # whoever says what it is need not insist
    choose(dock.scan.appearance, "kind", "chest CT")
    assert step.run.text() == "Run" and not step.refusal.isVisible()
    assert session.scan_image().name == "Chest CT a picture"
    choose(dock.scan.appearance, "kind", "MR")
    assert session.scan_image().name == "MR a picture"
    step.run.click()
    assert "magnetic resonance" in step.refusal.text() and not asked
    assert "It was not labelled" in step.refusal.text()

    step.run.click()
    qtbot.waitUntil(lambda: len(asked) == 1, timeout=LONG)
    assert asked[0].options.anyway and "not labelled" not in step.refusal.text()
    session.end()
    dock.workbench.opening.close()
    assert step.run.text() == "Run" and not step.refusal.isVisible()


def test_a_chest_ct_is_labelled_at_the_first_click(
    dock: CovSegDock, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Predict] = []
    monkeypatch.setattr(dock.workbench.jobs, "submit", lambda request, hear, *_: asked.append(request) or 1)
    dock.segment.run.click()
    qtbot.waitUntil(lambda: len(asked) == 1, timeout=LONG)
    assert not asked[0].options.anyway and not dock.segment.refusal.isVisible()
    dock.session.end()


def test_values_of_the_file_can_be_said_to_be_otherwise(
    workbench: tuple[Viewer, CovSegDock], scan: Scan, tmp_path: Path, qtbot: Any
) -> None:
    stored = scan.voxels.astype(np.int32) + 1024
    sitk.WriteImage(sitk.GetImageFromArray(stored.astype(np.int16)), str(tmp_path / "raw.nrrd"))
    _, dock = workbench
    dock.workbench.opening.path(tmp_path / "raw.nrrd")
    qtbot.waitUntil(lambda: dock.session.case is not None and not dock.session.busy_with, timeout=LONG)
    case = dock.session.case
    assert case is not None and case.case.intensity == "grey"
    values = dock.scan.appearance.values
    values.activated.emit(values.findData("HU+1024"))
    qtbot.waitUntil(lambda: dock.session.case is not case and not dock.session.busy_with, timeout=LONG)
    assert dock.session.case is not None and dock.session.case.case.intensity == "HU"
    np.testing.assert_array_equal(dock.session.case.voxels, scan.voxels)
