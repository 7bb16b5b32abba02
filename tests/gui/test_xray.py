"""An X-ray in the real viewer: what it is called, what is said of it, how it is labelled and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from napari import Viewer
from xrays import chest, write_xray

from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.requests import Predict
from napari_covseg.panels.dock import CovSegDock

LONG = 170_000  # ms; the child has to start


def test_an_x_ray_is_opened_painted_on_exported_and_labelled_at_the_second_click(
    workbench: tuple[Viewer, CovSegDock],
    tmp_path: Path,
    workspace_folder: Path,
    qtbot: Any,
    notified: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, dock = workbench
    step, session, folder = dock.scan, dock.session, tmp_path / "visit"
    write_xray(folder / "front.dcm", 65535 - chest(16), bits=16, PhotometricInterpretation="MONOCHROME1",
               WindowCenter=40000, WindowWidth=20001)  # fmt: skip
    write_xray(folder / "side.dcm", ViewPosition="LL")
    step.choose_series(folder)
    qtbot.waitUntil(step.series.isVisible)
    assert [step.series.itemText(n) for n in range(2)] == [
        "thorax · DX X-ray, CHEST, PA, front.dcm",
        "thorax · DX X-ray, CHEST, LL, side.dcm",
    ]
    step.open_series.click()
    qtbot.waitUntil(lambda: session.case is not None and not session.busy_with, timeout=LONG)

    # named as what it is, before anything is painted, and shown as the file wants it, with all its values
    case, image = session.case, session.scan_image()
    assert image.name == "Chest X-ray visit front"
    np.testing.assert_array_equal(image.data, chest(16)[None])
    assert tuple(image.contrast_limits) == (65535 - 49999.5, 65535 - 29999.5)
    assert tuple(image.contrast_limits_range) == (0, 65535)
    facts = step.facts.text()
    assert "<b>Chest X-ray visit front</b>" in facts and "Chest X-ray (DX), view PA." in facts
    assert "Pixels of 0.14 mm at the detector" in facts and "air is black" in facts
    assert "size in mm unknown" not in facts and not step.windows["Lung"].isEnabled()
    assert "looks like a chest X-ray, not like an axial chest CT." in step.appearance.sentences.text()
    assert any("side.dcm" in text for text in notified)

    # a stroke is kept, in the history, and exported on the grid of the file
    session.layers.labels["lesions"].paint((0, 40, 60), 2)
    case.flush()
    assert len(case.log.history.summaries()) == 1 and case.live["lesions"][0, 40, 60] == 2
    dock.export.path.setText(str(tmp_path / "drawn"))
    dock.export.save.click()
    qtbot.waitUntil(lambda: not session.busy_with)
    written = nibabel.load(tmp_path / "drawn_lesions.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, case.live["lesions"])
    assert written.header.get_zooms() == pytest.approx((0.14, 0.14, 1.0))

    # a model labels it only when a person insists
    asked: list[Predict] = []
    monkeypatch.setattr(dock.workbench.jobs, "submit", lambda request, hear, *_: asked.append(request) or 1)
    dock.segment.run.click()
    assert "chest X-ray" in dock.segment.refusal.text() and not asked
    dock.segment.run.click()
    qtbot.waitUntil(lambda: len(asked) == 1)
    assert asked[0].options.anyway
    session.end()

    # it is the same when it is opened again
    dock.workbench.opening.close()
    dock.workbench.opening.case(case.id)
    qtbot.waitUntil(lambda: session.case is not None and not session.busy_with, timeout=LONG)
    assert session.scan_image().name == "Chest X-ray visit front"
    assert session.scan_image().data.dtype == np.uint16 and step.facts.text() == facts
    assert session.case.live["lesions"][0, 40, 60] == 2
    assert Workspace.open(workspace_folder).case(case.id).appearance.kind == "chest X-ray"
