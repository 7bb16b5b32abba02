"""What every test shares: nothing of the person who runs them is read or written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from taught import teach

# On slices as small as those of the tests, threads wait for each other (which costs a core) more
# than they compute. Child processes inherit it; torch reads it when it is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

# napari reads and writes no settings then. It looks at this when it is imported, as tests are collected.
os.environ["NAPARI_CONFIG"] = ""

# Where Python may not keep what it compiles beside the sources (as in many containers), each child
# process would compile torch, which takes more than half of its start.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

# Slow machines are no reason to fail; the same examples everywhere, so that a failure can be repeated.
settings.register_profile(
    "covseg", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("covseg")


@pytest.fixture(scope="session", autouse=True)
def _own_user_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Send the user's data, settings and caches to a temporary folder, child processes included."""
    home: Path = tmp_path_factory.mktemp("home")
    names = ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "APPDATA"]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, str(home / name.lower()))
        patch.delenv("COVSEG_WORKSPACE", raising=False)
        yield


@pytest.fixture(scope="session")
def as_if_taught() -> Callable[[Any], None]:
    """Return what gives the normalisations of a network what they would have after they had seen data."""
    return teach


@pytest.fixture(autouse=True)
def _one_thread_stays() -> Iterator[None]:
    """Processes with as many threads as there are cores slow each other down tenfold: leave torch at one."""
    yield
    if torch := sys.modules.get("torch"):
        assert torch.get_num_threads() == 1, "the test left torch with more threads than it had"


@pytest.fixture(scope="session")
def untrained_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights for slices of 64²."""
    import torch

    from napari_covseg.models.card import ModelCard
    from napari_covseg.models.file import save_model
    from napari_covseg.models.preparation import Preparation
    from napari_covseg.networks.build import build_network

    torch.manual_seed(0)
    settings, outputs = {"features": [4, 8], "bottleneck": 16}, ("lungs", "lesion")
    card = ModelCard(
        id="parent",
        title="Random weights",
        summary="Knows nothing.",
        network={"name": "unet", "settings": settings},
        preparation=Preparation(size=64).to_card(),
        outputs=outputs,
        thresholds=dict.fromkeys(outputs, 0.5),
    )
    path = tmp_path_factory.mktemp("model") / "parent.safetensors"
    save_model(path, build_network("unet", outputs, settings), card)
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of tests/gui, and leave them out where there is no screen to draw on.

    Tests may run in several processes (``pytest -n 2 --dist loadgroup``); those that share a
    screen, and with it the keyboard, then stay in one. As that takes longest it begins at once.
    """
    items.sort(key=lambda item: "gui" not in Path(item.path).parts)
    screen = os.name == "nt" or os.uname().sysname == "Darwin" or bool(os.environ.get("DISPLAY"))
    for item in items:
        if "gui" in Path(item.path).parts:
            item.add_marker("gui")
            item.add_marker(pytest.mark.xdist_group("gui"))
            if not screen and not os.environ.get("CI"):
                item.add_marker(pytest.mark.skip(reason="needs a display: run the tests with `make test`"))
