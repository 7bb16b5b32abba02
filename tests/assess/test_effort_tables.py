"""Means, intervals and tables, from records made by hand."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_covseg.assess.effort_tables import (
    by_patient,
    curve,
    draw_effort,
    effort_tables,
    forgotten_at,
    interval,
    paired,
    points_csv,
    value_at,
)
from napari_covseg.errors import JobError


def record(
    patient: str, dice: list[float], strategy: str = "position", condition: str = "memory", seed: int = 0
) -> dict[str, Any]:
    """One point per corrected slice; learned from after the fifth, which adds 0.1."""
    points = [
        {"corrected": k, "strokes": 10 * k, "clicks": k, "dice": value, "versions": 0}
        for k, value in enumerate(dice)
    ]
    rounds = []
    if condition != "none" and len(dice) > 5:
        points.insert(6, {**points[5], "dice": dice[5] + 0.1, "versions": 1})
        rounds.append(
            {"corrected": 5, "held_out": 1, "step": 20, "seconds": 12.0, "forgotten": 0.01, "unseen": 0.03}
        )
    return {
        "patient": patient,
        "slices": 40,
        "protocol": {"strategy": strategy, "condition": condition, "seed": seed},
        "points": points,
        "rounds": rounds,
    }


RISING = [0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7]


def test_a_value_is_the_one_after_learning_and_stands_to_the_end() -> None:
    one = record("anna", RISING)
    assert value_at(one, 0) == 0.5
    assert value_at(one, 5) == pytest.approx(0.7)
    assert value_at(one, 50) == 0.7
    assert value_at(one, 6, "strokes") == 60
    assert (forgotten_at(one, 4), forgotten_at(one, 10)) == (0, 0.01)
    assert forgotten_at(one, 10, "unseen") == 0.03
    assert np.isnan(forgotten_at({**one, "rounds": [{"corrected": 5, "forgotten": 0.01}]}, 10, "unseen"))


def test_seeds_are_averaged_before_patients() -> None:
    runs = by_patient(
        [
            record("anna", [0.2]),
            record("anna", [0.4], seed=1),
            record("bert", [0.9]),
            record("bert", [0.1], "gain"),
        ],
        "position",
        "memory",
    )
    assert list(runs) == ["anna", "bert"]
    assert curve(runs, [0])[:, 0] == pytest.approx([0.3, 0.9])


def test_intervals_hold_the_mean_and_shrink_with_patients() -> None:
    few = interval(np.array([0.6, 0.8, 0.7]))
    many = interval(np.tile([0.6, 0.8, 0.7], 10))
    assert few[0] == pytest.approx(0.7) == pytest.approx(many[0])
    assert few[1] < many[1] < 0.7 < many[2] < few[2]
    assert interval(np.full(3, 0.5)) == pytest.approx((0.5, 0.5, 0.5))
    assert np.isnan(interval(np.zeros(0))).all()


def test_strategies_are_compared_patient_by_patient() -> None:
    one = by_patient(
        [record("anna", [0.6]), record("bert", [0.9]), record("cleo", [0.1])], "position", "memory"
    )
    other = by_patient([record("bert", [0.8], "gain"), record("anna", [0.4], "gain")], "gain", "memory")
    assert paired(one, other, 5) == pytest.approx([0.2, 0.1])


def records() -> list[dict[str, Any]]:
    made = []
    for patient, first in (("anna", 0.5), ("bert", 0.6)):
        rising = [first + 0.01 * k for k in range(11)]
        made += [record(patient, rising), record(patient, rising, condition="none")]
        made += [record(patient, [value + 0.02 for value in rising], "gain")]
        made += [record(patient, rising, condition="no-memory")]
    return made


def test_tables() -> None:
    text = effort_tables(records())
    anna = next(line for line in text.splitlines() if line.startswith("| anna"))
    # in the order that the interface proposes: at 0, 5 and 10 with; at 5 and 10 without; then efforts
    assert "in the order `gain`" in text
    assert anna == "| anna | 40 | 0.520 | 0.670 | 0.620 | – | – | 110 | – |"
    even = effort_tables([one for one in records() if one["protocol"]["strategy"] == "position"])
    assert "| anna | 40 | 0.500 | 0.650 | 0.600 | 0.550 | 0.600 | 110 | 110 |" in even
    gain = next(line for line in text.splitlines() if line.startswith("| gain"))
    assert gain.count("+0.020 (+0.020 to +0.020)") == 2
    assert "| position | with | 2 | +0.010 (+0.010 to +0.010)" in text
    assert "| position | without | 2 | +0.010" in text and "| gain | with | 2 | +0.010" in text
    for table in text.split("###")[1:]:
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) == 1


def test_tables_of_what_there_is() -> None:
    assert "By patient" in effort_tables([record("anna", RISING)])
    only = effort_tables([record("anna", RISING, "gain", "none")])
    assert "By patient" not in only and "gain" in only and "Forgetting" not in only


def test_csv() -> None:
    rows = list(csv.DictReader(points_csv(records()).splitlines()))
    assert len(rows) == sum(len(one["points"]) for one in records())
    assert rows[6] | {"dice": ""} == {
        "patient": "anna",
        "slices": "40",
        "strategy": "position",
        "condition": "memory",
        "seed": "0",
        "corrected": "5",
        "strokes": "50",
        "clicks": "5",
        "dice": "",
        "versions": "1",
    }
    assert float(rows[6]["dice"]) == pytest.approx(0.65)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    draw_effort(records(), tmp_path / "new" / "effort.png")
    assert (tmp_path / "new" / "effort.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match="cannot be written"):
        draw_effort(records(), tmp_path / "file" / "effort.png")


def test_without_matplotlib_the_figure_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(JobError, match=r"matplotlib.*pip install .napari-covseg\[figures\]"):
        draw_effort(records(), tmp_path / "effort.png")
