"""What a scan looks like stays in its case: what was found, and what a person says instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_covseg.cases.case import APPEARANCE, OVERRIDES, Case
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError, ScanError
from napari_covseg.scans import Scan
from napari_covseg.scans.appearance import look


@pytest.fixture
def scan() -> Scan:
    """Two grey ellipses in a third: nothing in particular."""
    y, x = np.mgrid[:64, :80]
    voxels = np.zeros((3, 64, 80), np.int16)
    voxels[:, (y - 32) ** 2 / 30**2 + (x - 40) ** 2 / 38**2 < 1] = 200
    for centre in (24, 56):
        voxels[:, (y - 32) ** 2 / 18**2 + (x - centre) ** 2 / 10**2 < 1] = 40
    voxels += np.random.default_rng(0).integers(0, 20, voxels.shape, dtype=np.int16)
    plain = np.eye(4)
    return Scan(voxels, None, "grey", plain, voxels.shape, plain, name="ellipses")


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


def stored(place: Workspace, case_id: str) -> Case:
    return Workspace.open(place.path).case(case_id)


def test_what_is_said_stands_before_what_was_found(place: Workspace, scan: Scan) -> None:
    case_id = place.add_case(scan)
    found = look(scan.voxels, scan.intensity)
    assert stored(place, case_id).appearance == found
    with OpenCase(place, case_id) as case:
        case.override_appearance({"turned": 270, "kind": "chest CT"})
        assert case.appearance.turned == 270 and case.found == found
    assert stored(place, case_id).appearance == found.overruled(turned=270, kind="chest CT")
    with OpenCase(place, case_id) as case:
        case.override_appearance({})
    assert stored(place, case_id).appearance == found


def test_a_case_that_nobody_has_looked_at_is_looked_at(place: Workspace, scan: Scan) -> None:
    case_id = place.add_case(scan)
    group = stored(place, case_id).group
    for name in (APPEARANCE, OVERRIDES):
        del group.attrs[name]
    assert stored(place, case_id).stored_appearance is None
    with OpenCase(place, case_id) as case:
        assert case.found == look(scan.voxels, scan.intensity)
        case.override_appearance({"inverted": True})
    assert stored(place, case_id).appearance.inverted
    assert stored(place, case_id).stored_appearance == look(scan.voxels, scan.intensity)


def test_what_cannot_be_said_is_not_written(place: Workspace, scan: Scan) -> None:
    case_id = place.add_case(scan)
    with OpenCase(place, case_id) as case:
        with pytest.raises(ScanError, match="turned cannot be 45"):
            case.override_appearance({"turned": 45})
        with pytest.raises(CaseError, match="read-only"):
            OpenCase(place, case_id, read_only=True).override_appearance({"turned": 90})
    assert stored(place, case_id).overrides == {}
    with pytest.raises(ScanError, match="nothing called size"):
        place.add_case(scan, overrides={"size": 3})
    assert [case.id for case in place.cases()] == [case_id]
