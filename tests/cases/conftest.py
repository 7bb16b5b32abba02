"""A small scan and a workspace with it as a case."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_covseg.cases.workspace import Workspace
from napari_covseg.scans.scan import Scan

sys.path.insert(0, str(Path(__file__).parent))  # for `painting`


def make_scan(shape: tuple[int, int, int] = (6, 32, 24), *, intensity: str = "HU", seed: int = 0) -> Scan:
    rng = np.random.default_rng(seed)
    grey = intensity == "grey"
    voxels = rng.integers(0, 256, shape) if grey else rng.integers(-1024, 1200, shape)
    return Scan(
        voxels=voxels.astype(np.int16),
        spacing=None if grey else (5.0, 0.7, 0.6),
        intensity="grey" if grey else "HU",
        affine=np.diag([5.0, 0.7, 0.6, 1.0]),
        source_shape=shape,
        source_affine=np.diag([0.6, 0.7, 5.0, 1.0]),
        flips=(True, False, False),
        name="Patient 7 / chest",
        patient_id="P007",
        series_uid="1.2.3",
        sop_uids=tuple(f"1.2.3.{z}" for z in range(shape[0])),
        notes=("gantry tilt of 3 degrees",),
    )


@pytest.fixture
def scan() -> Scan:
    return make_scan()


@pytest.fixture(scope="session")
def scan_maker() -> Callable[..., Scan]:
    return make_scan


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one case, which tests copy: faster than making one for each."""
    folder = tmp_path_factory.mktemp("templates") / "workspace.zarr"
    Workspace.open(folder).add_case(make_scan())
    return folder


@pytest.fixture
def workspace(tmp_path: Path, templates: Path) -> Workspace:
    """A workspace without cases."""
    folder = tmp_path / "workspace.zarr"
    shutil.copytree(
        templates, folder, ignore=lambda path, names: [n for n in names if n.startswith("patient")]
    )
    return Workspace.open(folder, create=False)


@pytest.fixture
def case_id(workspace: Workspace, templates: Path) -> str:
    """Id of a case of `scan` in `workspace`."""
    made = next(path for path in (templates / "cases").iterdir() if path.is_dir())
    shutil.copytree(made, Path(workspace.path, "cases", made.name))
    return made.name
