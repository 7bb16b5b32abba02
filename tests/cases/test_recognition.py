"""What models say of a case's slices is kept beside everything else, and never taken for more than it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_covseg.cases.case import Case
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.recognition import Recognition
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError

OUTPUTS = ("COVID-19", "normal")
SETTINGS = {"thresholds": {"COVID-19": 0.5, "normal": 0.5}, "shown": False, "caution": "Careful."}


@pytest.fixture
def case(workspace: Workspace, case_id: str) -> Case:
    return workspace.case(case_id)


def recognised(case: Case, *, heat: bool = True) -> Recognition:
    made = case.begin_recognition("net", "recognition", OUTPUTS, SETTINGS, 3, (4, 3) if heat else None)
    for z in (2, 3, 1, 0, 4):
        made.write_slice(z, (z / 10, 1 - z / 10), np.full((2, 4, 3), z, np.uint8) if heat else None)
    made.write_slice(5, (np.nan, np.nan))
    return made


def test_it_is_read_as_it_was_written_while_it_is_written_and_afterwards(case: Case) -> None:
    assert case.recognitions() == [] and case.recognition_names() == []
    made = recognised(case)
    before = case.recognition(made.id)
    assert before.is_done(5) and not before.info.finished
    made.finish((0.3, 0.7))
    read = case.recognition(made.id)
    info = read.info
    assert (info.model_id, info.task, info.outputs, info.revision) == ("net", "recognition", OUTPUTS, 3)
    assert (info.settings, info.heat_maps, info.finished) == (SETTINGS, (4, 3), True)
    assert (info.scan, info.shares) == ((0.3, 0.7), ())
    values = read.read_probabilities()
    np.testing.assert_array_equal(values[:5], np.float32([[z / 10, 1 - z / 10] for z in range(5)]))
    assert np.isnan(values[5]).all() and values.shape == (6, 2)
    heat = read.read_heat(4)
    assert heat is not None and heat.shape == (2, 4, 3) and (heat == 4).all()
    assert read.read_heat(5) is None
    assert [one.id for one in case.recognitions()] == [made.id]


def test_one_without_heat_maps_keeps_none(case: Case) -> None:
    made = recognised(case, heat=False)
    made.write_slice(0, (0.5, 0.5), np.ones((2, 4, 3), np.uint8))
    assert case.recognition(made.id).read_heat(0) is None and made.info.heat_maps is None


def test_a_slice_that_went_missing_is_no_slice_without_lung(case: Case) -> None:
    made = recognised(case)
    unfinished = case.recognition(made.id).read_probabilities()
    made.finish(())
    assert np.isnan(unfinished[5]).all()
    assert case.folder is not None
    chunk = case.folder / "recognitions" / made.id / "probabilities" / "c.5.0.0"
    chunk.unlink()
    with pytest.raises(CaseError, match=r"is not whole any more: recognise the scan again\.$"):
        case.recognition(made.id).read_probabilities()
    shutil.copy(chunk.with_name("c.4.0.0"), chunk)  # as many, but others
    with pytest.raises(CaseError, match="not whole"):
        case.recognition(made.id).read_probabilities()


def test_a_half_made_or_newer_one_is_left_out(case: Case) -> None:
    good, half, newer = (recognised(case) for _ in range(3))
    assert case.folder is not None
    folder = case.folder / "recognitions"
    (folder / half.id / "zarr.json").unlink()
    path = folder / newer.id / "zarr.json"
    stored = json.loads(path.read_text())
    stored["attributes"]["covseg"]["format"] = 99
    path.write_text(json.dumps(stored))
    assert [one.id for one in case.recognitions()] == [good.id]
    with pytest.raises(CaseError, match="update napari-covseg"):
        case.recognition(newer.id)


def test_labels_and_history_do_not_know_of_it(workspace: Workspace, case: Case) -> None:
    recognised(case).finish((0.3, 0.7))
    with OpenCase(workspace, case.id) as opened:
        assert opened.revision == 0 and not opened.damaged
    assert not any(values.any() for values in opened.live.values())


def test_a_case_without_any_opens_and_gets_its_first(workspace: Workspace, case: Case) -> None:
    assert not Path(case.path, "recognitions").exists()  # as those of before
    recognised(case)
    assert len(Workspace.open(workspace.path, create=False).case(case.id).recognitions()) == 1
