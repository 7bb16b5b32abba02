"""What the panel says of a model comes from its card, the measurement on patients first."""

from __future__ import annotations

from dataclasses import replace

from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import DEFAULT, find
from napari_covseg.panels.model_facts import how_scored, model_facts, scores_in_words


def card(scores: dict[str, object]) -> ModelCard:
    return replace(find(DEFAULT).card, scores=scores)


def test_patients_come_before_phantoms() -> None:
    phantoms = {"lungs Dice": 0.99, "painted, % of lungs": 0.8, "protocol": "ten phantoms"}
    patients = {"lungs Dice": 0.961, "lungs 95 % interval": [0.9, 1.0], "protocol": "twelve patients"}
    both = card({"phantoms": phantoms, "cross-validation": patients})
    assert scores_in_words(both) == "Dice, cross-validation: lungs 0.96"
    assert how_scored(both) == "twelve patients"
    assert scores_in_words(card({"phantoms": phantoms})) == "Dice, phantoms: lungs 0.99"


def test_scores_of_a_training_run() -> None:
    own = card({"validation": {"lungs": 0.9}, "test": {"lungs": 0.8, "lesion": 0.5}, "protocol": "pooled"})
    assert scores_in_words(own) == "Dice, test: lungs 0.80, lesion 0.50"
    assert how_scored(own) == "pooled"


def test_a_model_without_scores_claims_nothing() -> None:
    assert scores_in_words(card({})) == ""
    assert "Research use only, not for diagnosis" in model_facts(card({}))
