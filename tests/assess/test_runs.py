"""Simulations are kept in files, and are not made twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_covseg.assess import effort
from napari_covseg.assess.effort import Protocol, file_name, run_all
from napari_covseg.assess.patients import Assessed
from napari_covseg.errors import JobError

Make = Callable[..., Protocol]


def test_a_second_call_reads_what_the_first_one_made(
    assessed: Assessed, protocol: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocols = [protocol(condition="none", most=2), protocol(condition="none", strategy="gain", most=2)]
    first = next(run_all([assessed], protocols, tmp_path / "out"))  # interrupted after one
    assert first["threads"] == 1  # as many as torch was given, not all cores
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["anna-position-none-0.json"]
    calls = []
    real = effort.run
    monkeypatch.setattr(effort, "run", lambda *given: calls.append(given[2]) or real(*given))
    both = list(run_all([assessed], protocols, tmp_path / "out"))
    assert calls == protocols[1:]
    assert both[0] == json.loads(json.dumps(first))
    assert len(list(run_all([assessed], protocols, tmp_path / "out"))) == 2
    assert len(calls) == 1


@pytest.mark.slow
def test_several_at_a_time_make_the_same(assessed: Assessed, protocol: Make, tmp_path: Path) -> None:
    protocols = [protocol(most=5), protocol(condition="none", most=3)]
    alone = list(run_all([assessed], protocols, tmp_path / "alone"))
    together = list(run_all([assessed], protocols, tmp_path / "together", jobs=2))
    for one in alone:
        (same,) = [other for other in together if other["protocol"] == one["protocol"]]
        assert [p["corrected"] for p in same["points"]] == [p["corrected"] for p in one["points"]]
        assert [p["dice"] for p in same["points"]] == pytest.approx(
            [p["dice"] for p in one["points"]], abs=0.02
        )


def test_files_of_other_settings_are_not_taken(assessed: Assessed, protocol: Make, tmp_path: Path) -> None:
    list(run_all([assessed], [protocol(condition="none", most=2)], tmp_path))
    with pytest.raises(JobError, match="other settings or another model"):
        list(run_all([assessed], [protocol(condition="none", most=3)], tmp_path))


def test_damaged_files_are_named(assessed: Assessed, protocol: Make, tmp_path: Path) -> None:
    one = protocol(condition="none", most=2)
    (tmp_path / file_name(assessed, one)).write_text("{")
    with pytest.raises(JobError, match=r"none-0\.json cannot be read"):
        list(run_all([assessed], [one], tmp_path))
