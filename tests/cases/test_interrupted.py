"""Killed in the middle of writing, at any moment: the store can be read, and what it says is true."""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painting import paint

from napari_covseg.cases.case import Review
from napari_covseg.cases.check import check_workspace
from napari_covseg.cases.merge import merge_prediction
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace

pytestmark = pytest.mark.slow
SHAPE = (12, 96, 96)

# Every slice that is written holds one value only, so that a mixture shows.
WRITE = """
import itertools
import numpy as np
from pathlib import Path
from painting import paint
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.scans.scan import Scan

def scan(value, shape):
    return Scan(np.full(shape, value, np.int16), (1.0, 1.0, 1.0), "HU", np.eye(4), shape, np.eye(4))

workspace = Workspace.open(folder)
values = itertools.count(1)
if work == "import":
    for value in values:
        workspace.add_case(scan(value, shape))
        Path(ready).touch()
elif work == "predict":
    while True:
        run = workspace.case(case_id).begin_prediction("m", {}, [], 0, probabilities=False)
        for final in (False, True):
            for z, value in zip(range(shape[0]), values):
                full = np.full(shape[1:], value % 250 + 1, np.uint8)
                if final:
                    run.write_final("lungs", z, full)
                    run.write_final("lesions", z, full)
                else:
                    run.write_slice(z, full, full)
                Path(ready).touch()
        run.finish()
elif work == "paint":
    opened = OpenCase(workspace, case_id)
    for value in values:
        z = value % shape[0]
        paint(opened, "lungs", z, value % 250 + 1)
        if value % 5 == 0:
            opened.flush()
            Path(ready).touch()
elif work == "record":
    for session in values:
        opened = OpenCase(workspace, case_id, who="Ada")
        for value in range(7):
            z = session * 7 + value
            index = np.nonzero(np.ones((1, 20, 30)))
            index = (index[0] + z % shape[0], index[1] + value, index[2] + session % 50)
            before = opened.live["lesions"][index]
            opened.live["lesions"][index] = opened.revision % 250 + 1
            opened.record("lesions", index, before)
            if value % 3 == 0:
                opened.flush()
                Path(ready).touch()
                Path(told).write_text(str(opened.revision))
        opened.close()
"""


def killed(tmp_path: Path, seed: int, **what: Any) -> None:
    """Run WRITE in a process of its own and kill it at a random moment of its work."""
    # a fork server imports once for all the processes; Windows has none
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if sys.platform != "win32":
        context.set_forkserver_preload(["napari_covseg.cases.open_case"])
    ready = tmp_path / f"ready-{seed}"
    process = context.Process(target=exec, args=(WRITE, {"ready": str(ready), "shape": SHAPE, **what}))
    process.start()
    try:
        while not ready.exists():
            assert process.is_alive(), "the process ended by itself"
            time.sleep(0.002)
        time.sleep(random.Random(seed).uniform(0, 0.08))
    finally:
        process.kill()
        process.join()


def constant(values: Any) -> bool:
    return bool((values == values.flat[0]).all())


@pytest.mark.parametrize("seed", range(5))
def test_an_import(tmp_path: Path, scan: Any, seed: int) -> None:
    killed(tmp_path, seed, work="import", folder=tmp_path / "w", case_id="")
    workspace = Workspace.open(tmp_path / "w")
    infos = workspace.cases()
    assert infos
    assert len(infos) == len(list(Path(workspace.path, "cases").iterdir())) - 1  # and zarr.json
    for info in infos:
        with OpenCase(workspace, info.id) as opened:
            assert opened.voxels.any() and constant(opened.voxels)
    workspace.add_case(scan)
    assert not Path(workspace.path, "incoming").exists()


@pytest.mark.parametrize("seed", range(5))
def test_a_prediction(tmp_path: Path, workspace: Workspace, scan_maker: Any, seed: int) -> None:
    case = workspace.case(workspace.add_case(scan_maker(SHAPE)))
    killed(tmp_path, seed, work="predict", folder=workspace.path, case_id=case.id)
    infos = case.predictions()
    assert infos
    for info in infos:
        run = case.prediction(info.id)
        assert run.done.all() or not info.finished
        for z in np.flatnonzero(run.done):
            lungs, lesions = run.read_slice(z)
            assert lungs.any() and constant(lungs)
            assert lesions.any() and constant(lesions)
    last = case.prediction(infos[-1].id)
    merge_prediction(case, last)
    assert np.array_equal(case.review == Review.PREDICTED, last.done)
    begun = case.begin_prediction("m", {}, [], 0, probabilities=False)
    assert [info.id for info in case.predictions()] == [*(info.id for info in infos), begun.id]


@pytest.mark.parametrize("seed", range(5))
def test_painting(tmp_path: Path, workspace: Workspace, scan_maker: Any, seed: int) -> None:
    case_id = workspace.add_case(scan_maker(SHAPE))
    killed(tmp_path, seed, work="paint", folder=workspace.path, case_id=case_id)
    with OpenCase(workspace, case_id) as opened:  # the dead process's lock is free
        painted = opened.live["lungs"]
        assert painted.any()
        for z in range(SHAPE[0]):
            assert opened.touched["lungs"][z].all() or not painted[z].any()
        paint(opened, "lungs", 0)
        assert opened.revision > 0


@pytest.mark.parametrize("seed", range(5))
def test_recording(tmp_path: Path, workspace: Workspace, scan_maker: Any, seed: int) -> None:
    """Strokes, sessions that close and compact: nothing that was told to be saved is missing."""
    case_id = workspace.add_case(scan_maker(SHAPE))
    told = tmp_path / "told"
    killed(tmp_path, seed, work="record", folder=workspace.path, case_id=case_id, told=str(told))
    with OpenCase(workspace, case_id) as opened:
        assert not opened.damaged
        assert opened.revision >= int(told.read_text() or 0)
        numbers = [one.number for one in opened.history()]
        assert numbers == list(range(1, opened.revision + 1))
        expected = np.zeros(SHAPE, np.uint8)
        for number in numbers:
            session, value = divmod(number - 1, 7)
            z = (session + 1) * 7 + value
            box = np.s_[z % SHAPE[0], value : value + 20, (session + 1) % 50 : (session + 1) % 50 + 30]
            expected[box] = (number - 1) % 250 + 1
            if number == numbers[-1] - 3:
                assert np.array_equal(opened.state_at(number).labels["lesions"], expected)
        assert np.array_equal(opened.live["lesions"], expected)
        assert np.array_equal(opened.touched["lesions"], expected > 0)
        opened.flush()
        assert np.array_equal(opened.case.labels("lesions")[:], expected)
    assert check_workspace(workspace.path) == []
