"""A real viewer with the dock, a small scan, a model that needs no training, real mouse events."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import npe2
import numpy as np
import pytest
from napari import Viewer
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication

from napari_covseg import _sample_data
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.panels import strokes
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.layers import geometry
from napari_covseg.panels.workbench import WORKBENCHES
from napari_covseg.scans.scan import METADATA_KEY, Scan

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one

from canvas_mouse import Mouse

from make_phantom import write_sample
from phantom import phantom

# napari looks for its plugins with each viewer of a test, and reads what it knows already.
npe2.PluginManifest.from_file = functools.cache(npe2.PluginManifest.from_file)


def _freeze() -> None:
    """Spare the collector of garbage, which napari's fixture calls twice for each viewer, what stays."""
    gc.collect()
    gc.freeze()


_freeze()


@pytest.fixture(scope="session")
def freeze_once() -> Callable[[], None]:
    """Return what freezes, once, what napari keeps when its first viewer is closed."""
    return functools.cache(_freeze)


@pytest.fixture(autouse=True)
def workspace_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the cases of a test, and the models that it installs, to itself."""
    folder = tmp_path / "workspace.zarr"
    monkeypatch.setenv("COVSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("COVSEG_WORKSPACE", str(folder))
    monkeypatch.setenv("COVSEG_PREFERENCES", str(tmp_path / "preferences.json"))
    return folder


@pytest.fixture(autouse=True)
def one_drag_is_one_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is; that long drags are told in parts has tests of its own."""
    monkeypatch.setattr(strokes, "PART", 3600.0)


@pytest.fixture(autouse=True)
def no_workbench_is_left(request: pytest.FixtureRequest, freeze_once: Callable[[], None]) -> Iterator[None]:
    yield
    QApplication.processEvents()
    left = list(WORKBENCHES)
    for workbench in list(WORKBENCHES.values()):
        workbench.close()
    assert not left, "a workbench outlived its viewer"
    if "make_napari_viewer" in request.fixturenames:
        freeze_once()


class PatientBot(QtBot):
    """Waits for what comes, on however busy a machine; only a broken test waits so long."""

    def waitUntil(self, callback: Callable[[], Any], *, timeout: int = 600_000) -> None:
        super().waitUntil(callback, timeout=max(timeout, 600_000))


@pytest.fixture
def qtbot(qapp: QApplication, request: pytest.FixtureRequest) -> QtBot:
    return PatientBot(request)


@pytest.fixture
def small_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what makes the sample of the menu smaller: seed 7 in this shape and spacing."""

    def make(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
        write_sample(tmp_path / "small.nrrd", phantom(7, shape, spacing))
        monkeypatch.setattr(_sample_data, "FILE", tmp_path / "small.nrrd")

    return make


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net that calls dark pixels lung and bright ones lesion, without training."""
    path = tmp_path_factory.mktemp("model") / "threshold.safetensors"
    # in a process of its own, because torch must not be loaded in this one
    subprocess.run([sys.executable, Path(__file__).with_name("threshold_model.py"), path], check=True)
    return path


@pytest.fixture
def scan() -> Scan:
    """Two lungs of −850 HU in a body of 40 HU, a dense finding in the right one; 12 slices."""
    voxels = np.full((12, 96, 96), -1000, np.int16)
    y, x = np.mgrid[:96, :96]
    voxels[:, (y - 48) ** 2 / 40**2 + (x - 48) ** 2 / 46**2 < 1] = 40
    for centre in (28, 68):
        voxels[1:-1, (y - 48) ** 2 / 26**2 + (x - centre) ** 2 / 14**2 < 1] = -850
    voxels[3:9, 50:62, 22:34] = 0
    affine = np.array([[0, 0, 3.0, -140], [0, 3.0, 0, -140], [10.0, 0, 0, 0], [0, 0, 0, 1]])
    return Scan(
        voxels=voxels,
        spacing=(10.0, 3.0, 3.0),
        intensity="HU",
        affine=affine,
        source_shape=voxels.shape,
        source_affine=affine[:, [2, 1, 0, 3]],
        name="two lungs",
        patient_id="P7",
        notes=("Gantry tilt of 12 degrees: slices are drawn without the shear.",),
    )


@pytest.fixture
def add_scan() -> Callable[[Viewer, Scan], Any]:
    """Add a scan's layer as the package's reader does."""

    def add(viewer: Viewer, scan: Scan) -> Any:
        metadata = {METADATA_KEY: scan}
        return viewer.add_image(scan.voxels, name=scan.name, metadata=metadata, **geometry(scan.spacing))

    return add


@pytest.fixture
def workbench(make_napari_viewer: Any, qtbot: Any) -> tuple[Viewer, CovSegDock]:
    """A shown viewer with the dock of the plugin menu."""
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1280, 800)
    _, dock = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
    qtbot.waitExposed(dock)
    return viewer, dock


@pytest.fixture
def dock(
    workbench: tuple[Viewer, CovSegDock], scan: Scan, add_scan: Callable[[Viewer, Scan], Any], qtbot: Any
) -> CovSegDock:
    """The dock with the scan open; modules about one step unfold it."""
    viewer, dock = workbench
    add_scan(viewer, scan)
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=60_000)
    return dock


@pytest.fixture
def case(dock: CovSegDock) -> OpenCase:
    case = dock.session.case
    assert case is not None
    return case


@pytest.fixture
def mouse(workbench: tuple[Viewer, CovSegDock]) -> Mouse:
    return Mouse(workbench[0])


@pytest.fixture
def notified() -> Iterator[list[str]]:
    """Everything that napari tells the person during a test."""
    from napari.utils.notifications import notification_manager

    messages: list[str] = []

    def keep(notification: Any) -> None:
        messages.append(str(notification.message))

    notification_manager.notification_ready.connect(keep)
    yield messages
    notification_manager.notification_ready.disconnect(keep)
