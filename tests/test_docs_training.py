"""The lines of docs/training.md are run as they stand there, only shorter."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_covseg.cli import app
from napari_covseg.models.card import read_card
from phantom import Phantom, phantom

PAGE = Path(__file__).parent.parent / "docs" / "training.md"


def blocks() -> tuple[str, list[str]]:
    """The description and the commands of the section about one's own data."""
    section = PAGE.read_text("utf-8").split("## Your own data in twenty lines")[1].split("\n## ")[0]
    (toml,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    (shell,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return toml, shell.splitlines()


def store(path: Path, values: npt.NDArray[np.generic], like: Phantom) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dz, dy, dx = like.scan.spacing or (1.0, 1.0, 1.0)
    nib.save(nib.Nifti1Image(values.transpose(2, 1, 0), np.diag([-dx, -dy, dz, 1.0])), path)


def test_the_twenty_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml, commands = blocks()
    assert len(toml.splitlines()) + len(commands) <= 20
    patients = {
        name: phantom(seed, (4, 96, 96), (50.0, 3.7, 3.7))
        for name, seed in (("anna", 4), ("eve", 6), ("frank", 8), ("gina", 1000))
    }
    anna, eve, frank, gina = patients.values()
    for z, voxels in enumerate(anna.scan.voxels):
        grey = np.clip((voxels + 1350) / 1500 * 255, 0, 255).astype(np.uint8)
        masks = {
            "ct": grey,
            "lungs": (anna.lungs[z] > 0) * 255,
            "infection": np.isin(anna.lesions[z], [1, 2, 3]) * 255,
        }
        for part, values in masks.items():
            (tmp_path / "pictures" / "anna" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / "pictures" / "anna" / part / f"{z}.png")
    store(tmp_path / "anna.nii.gz", anna.scan.voxels, anna)
    store(tmp_path / "eve" / "scan.nii.gz", eve.scan.voxels, eve)
    store(tmp_path / "eve" / "effusion.nii.gz", (eve.lesions == 4).astype(np.uint8), eve)
    store(tmp_path / "frank" / "scan.nii.gz", frank.scan.voxels, frank)
    store(tmp_path / "frank" / "lungs.nii.gz", (frank.lungs > 0).astype(np.uint8), frank)
    for part, values in (("ct", gina.scan.voxels), ("lungs", gina.lungs), ("lesions", gina.lesions)):
        store(tmp_path / "whole" / "gina" / f"{part}.nii.gz", values, gina)
    (tmp_path / "mine.toml").write_text(toml, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for line in commands[1:]:  # what the first one installs, the tests have
        words = shlex.split(line, comments=True)
        assert words[0] == "covseg"
        shorter = [*words[1:], "--size", "64", "--device", "cpu"] if words[1] == "train" else words[1:]
        shorter = [
            "1" if before == "--steps" else word
            for before, word in zip(["", *shorter], shorter, strict=False)
        ]
        result = CliRunner().invoke(app, shorter)
        assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "mine.safetensors")
    assert card.outputs == ("lungs", "ground-glass", "consolidation", "pleural effusion")
    assert card.split["test"] == ["frank"]
    assert card.licence == "ours, not for sale"
    assert nib.load(tmp_path / "lesions.nii.gz").shape == (96, 96, 4)
