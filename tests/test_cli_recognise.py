"""``covseg recognise``: a scan, or each X-ray of a folder, with what has to be said beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from recognisers import TRUST, write_recognisers
from typer.testing import CliRunner, Result
from xrays import chest, write_xray

from napari_covseg.cli import app
from napari_covseg.models import catalogue
from napari_covseg.models.card import RESEARCH_USE
from napari_covseg.scans import scans_in


def covseg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, as_if_taught: Callable[[Any], None]) -> Path:
    return write_recognisers(tmp_path_factory.mktemp("models"), as_if_taught)


@pytest.fixture
def folder(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two X-rays as pictures, and a file that is none."""
    monkeypatch.setattr(catalogue, "_SHIPPED", models)
    place = tmp_path / "pictures"
    place.mkdir()
    for name, picture in (("a", chest(8)), ("b", np.ascontiguousarray(chest(8)[:, 10:]))):
        cv2.imwrite(str(place / f"{name}.png"), picture.astype(np.uint8))
    return place


def test_each_x_ray_of_a_folder_has_a_row_and_a_broken_one_says_so(folder: Path) -> None:
    result = covseg("recognise", folder, "--device", "cpu")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["a", "b"]
    assert all(line.endswith("% (tiny-xray)") and "COVID-19" in line for line in lines[:2])
    assert lines[2:] == [f"tiny-xray: {TRUST}", RESEARCH_USE]

    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:500])
    result = covseg("recognise", folder, "--device", "cpu", "--json")
    assert result.exit_code == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    scans = [one for one in records if one["event"] == "scan_recognised"]
    assert [one["name"] for one in scans] == ["a", "b"]
    assert all(one["shown"] and one["caution"] == TRUST for one in scans)
    (failed,) = (one["message"] for one in records if one["event"] == "failed")
    assert failed.startswith("c.png is a truncated")
    refused = covseg("recognise", folder, "--heat-map", folder / "heat.png")
    assert refused.exit_code == 2 and "is for one scan" in refused.stderr


def test_what_may_not_be_shown_as_a_finding_is_not(folder: Path) -> None:
    said = covseg("recognise", folder / "a.png", "--model", "tiny-ct").stdout.splitlines()
    assert said[0].startswith(
        "a: nothing is recognised; tiny-ct has learned from CT alone, so it says nothing"
    )
    assert said[1:] == [RESEARCH_USE] and "%" not in said[0]
    said = covseg("recognise", folder / "a.png", "--seen-as", "kind=chest CT", "--device", "cpu").stdout
    first, second, *cautions = said.splitlines()
    assert first.startswith("a: no finding; tiny-ct says ")
    assert cautions == [f"tiny-ct: {TRUST}", f"tiny-manifestations: {TRUST}", RESEARCH_USE]
    assert second.startswith("a: ground-glass up to ")


def test_x_rays_in_dicom_are_one_each_and_a_stack_is_one(tmp_path: Path) -> None:
    for number in (1, 2):
        write_xray(tmp_path / "visit" / f"{number}.dcm", ViewPosition="PA" if number == 1 else "LL")
    assert [uid for _, uid in scans_in(tmp_path / "visit")] == ["1.2.3.4.5#1", "1.2.3.4.5#2"]
    stack = tmp_path / "stack"
    stack.mkdir()
    slice_ = np.where(np.hypot(*(np.mgrid[:96, :96] - 48)) < 40, 140, 0).astype(np.uint8)
    for number in range(3):
        cv2.imwrite(str(stack / f"{number}.png"), slice_ + number)
    assert scans_in(stack) == [(stack, None)] and scans_in(stack / "0.png") == [(stack / "0.png", None)]
