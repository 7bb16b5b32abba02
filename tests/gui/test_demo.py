from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari import Viewer
from PIL import Image

from napari_covseg.panels.demo import Demo
from napari_covseg.panels.dock import CovSegDock

LONG = 170_000


def test_the_demo_labels_the_sample_and_leaves_a_picture(
    workbench: tuple[Viewer, CovSegDock],
    model_file: Path,
    qtbot: Any,
    tmp_path: Path,
    small_sample: Callable[..., None],
) -> None:
    small_sample((16, 128, 128), (20.0, 2.8, 2.8))
    viewer, dock = workbench
    dock.segment.install_model(str(model_file))
    demo = Demo(viewer, dock, tmp_path / "demo.png")
    demo.begin()
    qtbot.waitUntil((tmp_path / "demo.png").exists, timeout=LONG)
    assert demo.finished and not demo.trouble
    width, height = Image.open(tmp_path / "demo.png").size
    assert width >= 800 and height >= 600
    qtbot.waitUntil(lambda: dock.session.case is None)  # the window has closed


def test_the_demo_says_why_it_failed(
    workbench: tuple[Viewer, CovSegDock], qtbot: Any, tmp_path: Path
) -> None:
    viewer, dock = workbench
    demo = Demo(viewer, dock, tmp_path / "demo.png")
    dock.workbench.opening.path(tmp_path / "is_not_there.nii.gz")
    qtbot.waitUntil(lambda: bool(demo.trouble), timeout=LONG)
    assert not demo.finished and not (tmp_path / "demo.png").exists()
