"""``covseg assess``: what it refuses, and one small run from the data to the tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_covseg.cli import app


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--strategies", "position,best"], "names no strategy that is known here"),
        (["--conditions", ""], "names no condition that is known here: choose from none, guide"),
    ],
)
def test_unknown_names(option: list[str], message: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["assess", "effort", "data", "models", "--out", str(tmp_path), *option])
    assert told.exit_code == 2
    assert message in " ".join(told.output.split())


def test_from_data_to_tables(model_file: Path, data: Path, tmp_path: Path) -> None:
    where = [str(data), str(model_file.parent)]
    out = tmp_path / "out"
    told = CliRunner().invoke(
        app, ["assess", "effort", *where, "--out", str(out), "--strategies", "position,gain", "--most", "2"]
    )
    assert told.exit_code == 0, told.output
    names = {path.name for path in out.iterdir()}
    assert {"effort.md", "effort.csv", "effort.png"} < names
    assert len(names) == 3 + 2 * 2  # one patient, two strategies, with and without
    assert "| anna | 4 |" in (out / "effort.md").read_text()
