"""Which answers may be shown, and what is made of those of all slices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recognisers import TRUST, make_card

from napari_covseg.labels import Modality
from napari_covseg.models.catalogue import ModelEntry
from napari_covseg.recognise.answers import in_words, of_scan, suited, verdict
from napari_covseg.scans.appearance import KINDS, Appearance

MANIFESTATIONS = {
    "task": "manifestations",
    "outputs": ("ground-glass", "consolidation"),
    "modalities": ("CT",),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("chest CT", "chest X-ray")])
@pytest.mark.parametrize("values", [{"modalities": ("X-ray", "CT")}, MANIFESTATIONS])
def test_of_what_is_no_chest_nothing_is_said(kind: Any, values: dict[str, Any]) -> None:
    said = verdict(make_card(**values), Appearance("grey", kind))
    assert (said.asked, said.shown) == (False, False)
    assert said.caution.endswith("so nothing is recognised in it.") and said.caution.count(". ") == 0


ALONE = "tiny has learned from {} alone, so it says nothing of {}."
UNMEASURED = "How far tiny can be trusted was not measured, so what it says is no finding."
UNSTATED = "tiny does not say what it has learned from, so it says nothing of an X-ray."
UNSURE = "It is hardly known to be a chest {} ({} % sure), so nothing is recognised in it."


@pytest.mark.parametrize(
    ("kind", "sure", "values", "asked", "shown", "caution"),
    [
        ("chest X-ray", 1.0, {}, True, True, TRUST),
        ("chest CT", 1.0, {}, False, False, ALONE.format("X-rays", "a CT")),
        ("chest X-ray", 1.0, MANIFESTATIONS, False, False, ALONE.format("CT", "an X-ray")),
        ("chest CT", 1.0, MANIFESTATIONS, True, True, TRUST),
        ("chest X-ray", 1.0, {"trusted": False}, True, False, TRUST),
        ("chest X-ray", 1.0, {"trust": ""}, True, False, UNMEASURED),
        ("chest X-ray", 1.0, {"modalities": ()}, False, False, UNSTATED),
        ("chest X-ray", 0.45, {}, False, False, UNSURE.format("X-ray", 45)),
        ("chest X-ray", 0.6, {}, True, True, TRUST),
        ("chest CT", 0.55, MANIFESTATIONS, False, False, UNSURE.format("CT", 55)),
    ],
)
def test_a_verdict_says_whether_and_why(
    kind: Any, sure: float, values: dict[str, Any], asked: bool, shown: bool, caution: str
) -> None:
    said = verdict(make_card(**values), Appearance("grey", kind, confidence={"kind": sure}))
    assert (said.asked, said.shown, said.caution) == (asked, shown, caution)


def test_the_class_of_a_scan_is_that_of_the_five_slices_most_like_covid() -> None:
    card = make_card(outputs=("normal", "COVID-19"))
    covid = np.array([0.1, 0.9, np.nan, 0.7, 0.2, 0.6, 0.8, 0.5, np.nan])
    found = of_scan(card, np.stack([1 - covid, covid], 1))
    assert found.probabilities == pytest.approx((0.3, 0.7)) and (found.slices, found.shares) == (7, ())
    assert in_words(card.task, card.outputs, found) == "COVID-19 70 %, normal 30 %"
    assert of_scan(card, np.full((3, 2), np.nan)).slices == 0
    json.dumps(found.probabilities)  # plain numbers


def test_a_manifestation_is_as_likely_as_in_its_likeliest_slice_and_counted_by_slices() -> None:
    card = make_card(**MANIFESTATIONS, thresholds={"ground-glass": 0.6, "consolidation": 0.3})
    found = of_scan(card, np.array([[0.2, 0.3], [np.nan, np.nan], [0.9, 0.1], [0.6, 0.1], [0.1, 0.1]]))
    assert found.probabilities == (0.9, 0.3) and found.shares == (0.5, 0.25) and found.slices == 4
    words = in_words(card.task, card.outputs, found)
    assert words.startswith("ground-glass up to 90 % (found in 50 % of the slices), consolidation")


def test_the_first_model_that_has_learned_from_such_scans_is_taken() -> None:
    known: dict[str, tuple[Modality, ...]] = {"a": (), "b": ("CT",), "c": ("CT", "X-ray")}
    none, ct, both = (ModelEntry(make_card(id=name, modalities=of), Path(name)) for name, of in known.items())
    assert suited((none, ct, both), "CT") is ct
    assert suited((none, ct, both), "X-ray") is both
    assert suited((none, ct), "X-ray") is None and suited((none, both), None) is None
