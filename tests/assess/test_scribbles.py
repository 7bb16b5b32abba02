"""Scribbles lie in the mistakes, and the table says what they bring."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_covseg.assess.patients import Assessed

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
module = importlib.import_module("refine")
scribbles = module.scribbles

masks = arrays.arrays(np.bool_, (20, 20), elements=st.booleans())


@given(masks, masks)
def test_scribbles_lie_in_the_mistakes(
    predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]
) -> None:
    positive, negative = scribbles(predicted, truth)
    assert not (positive & ~(truth & ~predicted)).any()
    assert not (negative & ~(predicted & ~truth)).any()


def test_a_line_along_the_largest_part() -> None:
    truth = np.zeros((40, 40), bool)
    truth[10:16, 5:30] = True
    truth[30:34, 30:34] = True
    positive, negative = scribbles(np.zeros_like(truth), truth)
    assert not negative.any()
    assert not positive[30:, 30:].any()  # the other part is smaller
    rows, columns = np.nonzero(positive)
    assert np.ptp(columns) > 15 > np.ptp(rows)
    assert positive.sum() < 0.7 * truth.sum()
    assert not scribbles(truth, truth)[0].any()


def test_specks_are_not_worth_a_scribble() -> None:
    truth = np.zeros((10, 10), bool)
    truth[2:4, 2:4] = True
    assert not scribbles(np.zeros_like(truth), truth)[0].any()


def test_the_truth_reaches_the_refinement_only_as_scribbles(
    assessed: Assessed, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(model: object, image: object, said: npt.NDArray[np.float32], *hints: npt.NDArray[np.bool_]):  # type: ignore[no-untyped-def]
        seen.append((said, *hints))
        return np.ones_like(said)

    monkeypatch.setattr(module, "refine", spy)
    rows = list(module.refine_all([assessed, assessed], 6))
    assert len(rows) == len(seen) > 0
    for row, (said, positive, negative) in zip(rows, seen, strict=True):
        truth = assessed.patient.lesions[row.z] > 0
        expected = scribbles(said >= 0.5, truth)
        assert np.array_equal(positive, expected[0]) and np.array_equal(negative, expected[1])
        assert row.scribbled >= row.before
        assert row.refined == pytest.approx(2 * truth.sum() / (truth.size + truth.sum()))


def test_the_table_averages_by_patient() -> None:
    def row(patient: str, gain: float) -> object:
        return module.Refined(patient, 0, 0.5, 0.6, 0.6 + gain, 0.05)

    text = module.refine_table([row("anna", 0.1), row("anna", 0.3), row("bert", 0.0)])
    assert "| slices, patients | 3, 2 |" in text
    assert "+0.100 (+0.000 to +0.200)" in text  # 0.2 and 0
    assert "| milliseconds, median | 50 |" in text
    assert "67 %" in text


def test_from_data_to_the_table(
    data: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["refine.py", str(data), str(model_file.parent)])
    module.main()
    assert "gain over the scribbles alone" in capsys.readouterr().out
