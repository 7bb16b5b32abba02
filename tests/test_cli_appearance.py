"""What the shell says of how a scan looks, and what a person can say instead."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent / "jobs"))
from tiny_model import write_tiny_model
from xrays import write_xray

from napari_covseg.cases.workspace import Workspace
from napari_covseg.cli import app
from napari_covseg.models.catalogue import DEFAULT, find
from napari_covseg.models.preparation import Preparation, as_shown, reorient_back
from napari_covseg.scans.appearance import LUNG_WINDOW, Appearance
from phantom import phantom

TURN, ACROSS = 90, 160


def covseg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def records(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(result: Result) -> str:
    """Return the one line of a user's error."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("Error: ")
    return lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom's slice as a picture, inverted and turned (turned.png), and a label mask (mask.png)."""
    made = tmp_path_factory.mktemp("pictures")
    voxels = phantom(seed=1007, shape=(9, ACROSS, ACROSS), spacing=(35.0, 2.2, 2.2)).scan.voxels
    low, high = LUNG_WINDOW
    grey = np.asarray((np.clip(voxels[4], low, high) - low) * (255 / (high - low)), np.uint8)
    Image.fromarray(np.ascontiguousarray(np.rot90(255 - grey, TURN // 90))).save(made / "turned.png")
    y, x = np.mgrid[:96, :96]
    mask = ((y - 48) ** 2 / 30**2 + (np.abs(x - 48) - 22) ** 2 / 16**2 < 1).astype(np.uint8)
    Image.fromarray(255 * mask).save(made / "mask.png")
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def test_info_says_a_line_for_each_sentence(folder: Path) -> None:
    looks = [line for line in covseg("info", folder / "turned.png").stdout.splitlines() if "look  " in line]
    (facts,) = records(covseg("info", folder / "turned.png", "--json"))
    found = Appearance.from_json(facts["appearance"])
    assert [line.removeprefix("look       ") for line in looks] == found.sentences()
    assert (found.kind, found.turned, found.inverted) == ("chest CT", TURN, True)

    said = covseg("info", folder / "turned.png", "--seen-as", "turned=180", "--seen-as", "inverted=no").stdout
    assert "turned by 180°" in said and "inverted" not in said


def test_info_shows_what_the_model_is_shown(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "shown.png"
    assert f"Wrote {out}" in covseg("info", folder / "turned.png", "--show", out).stdout
    written = np.asarray(Image.open(out), np.float64)
    source = np.asarray(Image.open(folder / "turned.png"))
    found = Appearance("grey", contrast="lung window", inverted=True, turned=TURN)
    shown = as_shown(source, found, Preparation.from_card(find(DEFAULT).card.preparation))
    side = len(shown)
    assert written.shape == (side, 2 * side + 8)  # the slice is square
    assert (written[:, side + 8 :] == shown).all()
    small = np.asarray(Image.fromarray(written[:, :side].astype(np.uint8)).resize(source.shape[::-1]))
    assert np.abs(small.astype(float) - source).mean() < 12  # as the file has it: neither turned nor inverted
    assert [p.name for p in tmp_path.iterdir()] == ["shown.png"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--show", "x.jpg"), "let it end in .png"),
        (("--slice", "1"), "--slice is for the picture"),
        (("--show", "x.png", "--slice", "2"), "has no slice 2; choose one of 1 to 1"),
        (("--show", "nowhere/x.png"), "nowhere/x.png cannot be written"),
        (("--seen-as", "turned=45"), "turned cannot be 45; choose of 0, 90, 180, 270"),
        (("--seen-as", "inverted=maybe"), "inverted cannot be maybe; choose of no, yes"),
        (("--seen-as", "size=3"), "'size=3' says nothing of a scan"),
        (("--seen-as", "turned"), "write FIELD=VALUE"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(covseg("info", folder / "turned.png", *arguments))
    assert not list(tmp_path.iterdir())


def test_what_is_no_chest_ct_is_labelled_only_when_insisted(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "lesions.nii.gz"
    command = ("predict", folder / "mask.png", "--out", out, "--model", model, "--device", "cpu")
    sentence = refused(covseg(*command))
    assert "looks like a label mask" in sentence and "--anyway" in sentence
    assert not out.exists()
    assert covseg(*command, "--anyway").exit_code == 0
    assert out.exists()
    out.unlink()
    assert covseg(*command, "--seen-as", "kind=chest CT").exit_code == 0
    assert out.exists()


def test_an_x_ray_opens_is_named_and_is_labelled_only_when_insisted(model: Path, tmp_path: Path) -> None:
    folder, place, out = tmp_path / "visit", tmp_path / "workspace", tmp_path / "lesions.nii.gz"
    write_xray(folder / "a.dcm", bits=16, WindowCenter=40000, WindowWidth=20000)
    write_xray(folder / "b.dcm", ViewPosition="LL")
    said = covseg("info", folder).stdout
    assert "visit a: 1 slice of 128 x 128" in said and "intensity  grey, 0 to 65535" in said
    assert "fact       Chest X-ray (DX), view PA." in said and "0.14 mm at the detector" in said
    assert "looks like a chest X-ray, not like an axial chest CT." in said
    assert re.search(r"series   \* 1\.2\.3\.4\.5#1  DX X-ray, CHEST, PA, a\.dcm", said)
    assert re.search(r"series     1\.2\.3\.4\.5#2  DX X-ray, CHEST, LL, b\.dcm", said)
    (facts,) = records(covseg("info", folder, "--series", "1.2.3.4.5#2", "--json"))
    assert "b.dcm is a lateral view (LL), not a frontal one." in facts["notes"]
    assert facts["appearance"]["kind"] == "chest X-ray" and len(facts["window"]) == 2
    assert covseg("info", folder, "--show", tmp_path / "shown.png").exit_code == 0
    left = np.asarray(Image.open(tmp_path / "shown.png"))[:, :128]
    assert left.min() == 0 and left.max() == 255 and 0.2 < np.mean((left == 0) | (left == 255)) < 0.9

    command = ("predict", folder, "--out", out, "--model", model, "--device", "cpu")
    assert "visit a: This looks like a chest X-ray" in refused(covseg(*command)) and not out.exists()
    assert covseg(*command, "--anyway").exit_code == 0 and out.exists()
    assert covseg("import", folder, "--workspace", place).exit_code == 0
    (case,) = Workspace.open(place).cases()
    case_id = case.id
    sentence = refused(covseg("predict", "--workspace", place, "--case", case_id, "--model", model))
    assert "chest X-ray" in sentence and "--anyway" in sentence


def test_a_case_keeps_what_is_said_when_it_is_imported(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "workspace"
    command = ("import", folder / "turned.png", "--workspace", place, "--json")
    events = records(covseg(*command, "--seen-as", "turned=270", "--seen-as", "cropped=yes"))
    (imported,) = [event for event in events if event["event"] == "imported"]
    case = Workspace.open(place).case(imported["case_id"])
    assert case.overrides == {"turned": 270, "cropped": True}
    assert (case.appearance.turned, case.appearance.cropped, case.appearance.inverted) == (270, True, True)
    assert case.found.turned == TURN
    assert any("turned by 270°" in event.get("text", "") for event in events)

    assert "turned cannot be 3" in refused(covseg(*command[:4], "--seen-as", "turned=3"))
    assert len(Workspace.open(place).cases()) == 1


def test_labels_lie_as_the_file_does_whatever_is_said() -> None:
    appearance = Appearance("grey", contrast="lung window", turned=TURN, cropped=True)
    slice_ = np.arange(35, dtype=np.int16).reshape(5, 7)
    shown = np.pad(np.rot90(slice_, -1), 1)
    assert (reorient_back(shown, appearance) == slice_).all()
