"""A viewer is killed while somebody paints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from killed_viewer import KilledViewers, tiny_workspace


@pytest.mark.timeout(900)  # five viewers start
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_five_kills_in_the_middle_of_painting(tmp_path: Path) -> None:
    viewers = KilledViewers(*tiny_workspace(tmp_path / "workspace.zarr"), seed=0)
    kills = [viewers.kill(0.3, 2.0) for _ in range(5)]  # each checks all that is promised
    assert sum(kill.strokes for kill in kills) >= 5
    assert kills[-1].revision >= sum(kill.strokes - kill.missing for kill in kills)
