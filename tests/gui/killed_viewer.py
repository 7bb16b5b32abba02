"""Kills viewers that paint, with SIGKILL, and sees what is left of the case."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from painting_viewer import checksum

from napari_covseg.cases.check import check_workspace
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import LearnedFrom, WorkspaceModel, WorkspaceModels
from napari_covseg.models.card import card_of, read_card
from napari_covseg.models.catalogue import DEFAULT, available, find
from napari_covseg.scans import Scan

PATIENCE = 600.0  # seconds until a viewer has painted its first stroke
AT_MOST = 1.0  # seconds of strokes that may be missing


@dataclass(frozen=True)
class Kill:
    """What a kill has left.

    Attributes
    ----------
    strokes : int
        How many strokes were told.
    missing : int
        How many of them are not in the case.
    lost : float
        How long before the kill the first of these ended, in seconds.
    revision : int
        The last revision that the case has.
    """

    strokes: int
    missing: int
    lost: float
    revision: int

    def __str__(self) -> str:
        lost = f"the last {1e3 * self.lost:.0f} ms are missing" if self.missing else "none is missing"
        return f"{self.strokes} strokes up to revision {self.revision}, {lost}"


def tiny_workspace(folder: Path) -> tuple[Workspace, str]:
    """Return a workspace with one small case and one kept version of the default model."""
    workspace = Workspace.open(folder)
    shape = (6, 64, 64)
    voxels = np.random.default_rng(0).integers(-1000, 200, shape, np.int16)
    affine = np.eye(4)
    case_id = workspace.add_case(Scan(voxels, (5.0, 2.0, 2.0), "HU", affine, shape, affine, name="noise"))
    versions, path = WorkspaceModels(workspace), find(DEFAULT).path
    made = versions.add(
        DEFAULT,
        DEFAULT,
        lambda name: (path.read_bytes(), read_card(path).to_json()),
        scores={},
        learned_from={case_id: LearnedFrom(0, (1,), (3,))},
    )
    versions.keep(made.id)
    return workspace, case_id


class KilledViewers:
    """Viewers that paint in one case, one after the other, each killed.

    Parameters
    ----------
    workspace : Workspace
    case_id : str
    seed : int
        Decides what is painted and when it is killed.
    """

    def __init__(self, workspace: Workspace, case_id: str, seed: int) -> None:
        self._workspace = workspace
        self._case_id = case_id
        self._random = random.Random(seed)
        self._models = self._list_models()
        self._shipped = [entry.card for entry in available()]
        self._state: tuple[int, int] | None = None
        self._environment = dict(os.environ)
        if self._environment.pop("PYTHONDONTWRITEBYTECODE", ""):
            # compiling everything anew takes a third of a viewer's start
            self._environment["PYTHONPYCACHEPREFIX"] = f"{workspace.path}.pycache"

    def kill(self, shortest: float, longest: float) -> Kill:
        """Kill a viewer at a random moment, so many seconds after its first stroke, and check the case.

        Raises
        ------
        AssertionError
            If something that was told more than a second before is missing, or anything is damaged.
        """
        told, killed = self._paint(self._random.uniform(shortest, longest))
        kill = self._check(told, killed)
        damaged = [str(found) for found in check_workspace(self._workspace.path) if found.level == "damaged"]
        assert not damaged, damaged
        models = self._list_models()
        assert models == self._models, f"the models were {self._models} and are {models}"
        current = WorkspaceModels(self._workspace).current(DEFAULT)
        assert current in (DEFAULT, *models), f"the model in use is {current}"
        assert [read_card(entry.path) for entry in available()] == self._shipped
        return kill

    def _paint(self, seconds: float) -> tuple[list[dict[str, Any]], float]:
        """Return what a viewer told, and when it was killed."""
        program = Path(__file__).with_name("painting_viewer.py")
        seed = str(self._random.randrange(10**6))
        command = [sys.executable, str(program), self._workspace.path, self._case_id, seed]
        lines: list[str] = []
        with TemporaryFile("w+") as errors:
            viewer = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self._environment
            )
            assert viewer.stdout is not None
            reader = threading.Thread(target=lines.extend, args=[viewer.stdout])
            reader.start()
            try:
                end = time.monotonic() + PATIENCE
                while len(lines) < 2 and viewer.poll() is None and time.monotonic() < end:
                    time.sleep(0.01)  # the first line tells of the case that was opened
                time.sleep(seconds)
                killed = time.time()
                ended = viewer.poll()
            finally:
                viewer.kill()
                viewer.wait()
                reader.join()
            errors.seek(0)
            assert ended is None and len(lines) > 1, f"the viewer did not paint ({ended}): {errors.read()}"
        return [json.loads(line) for line in lines if line.endswith("\n")], killed

    def _check(self, told: list[dict[str, Any]], killed: float) -> Kill:
        opened, *strokes = told
        if self._state is not None:
            assert self._state == (opened["revision"], opened["checksum"]), "another state than was left"
        # every second time the next viewer, not this process, opens what the kill has left
        with OpenCase(self._workspace, self._case_id, read_only=self._random.random() < 0.5) as case:
            assert not case.damaged, case.damaged
            numbers = [one.number for one in case.history()]
            assert numbers == list(range(1, case.revision + 1)), "the history has gaps"
            for one in told:
                if one["revision"] <= case.revision:
                    state = case.state_at(one["revision"])
                    found = checksum(state.labels, state.touched, state.review)
                    assert found == one["checksum"], f"revision {one['revision']} is not as it was told"
            self._state = case.revision, checksum(case.live, case.touched, case.review)
            missing = [one for one in strokes if one["revision"] > case.revision]
            lost = max((killed - one["time"] for one in missing), default=0.0)
            assert lost <= AT_MOST, f"strokes of the last {lost:.2f} s are missing"
            return Kill(len(strokes), len(missing), lost, case.revision)

    def _list_models(self) -> dict[str, tuple[WorkspaceModel, bytes]]:
        versions = WorkspaceModels(self._workspace)
        listed = {one.id: (one, versions.weights(one.id)) for one in versions.list()}
        for name, (_, weights) in listed.items():
            card_of(weights, name)
        return listed
