"""Which models one can choose, and what the panel says of them: the measurement on patients first."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import pytest

from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import ModelState, WorkspaceModels
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import DEFAULT, available, find
from napari_covseg.networks.catalogue import CATALOGUE
from napari_covseg.panels.segment import models
from napari_covseg.panels.segment.models import (
    how_scored,
    model_choices,
    model_facts,
    model_page,
    scores_in_words,
)


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


def test_the_page_says_what_the_card_says() -> None:
    known = find(DEFAULT).card
    page = model_page(known, "in the package")
    for said in (known.id, known.summary, known.use, known.trained_on, known.licence, "in the package"):
        assert escape(said) in page, said
    for patients in known.split.values():
        assert ", ".join(patients) in page
    interval = {"lungs Dice": 0.961, "lungs 95 % interval": [0.9, 0.975], "protocol": "twelve <patients>"}
    page = model_page(card({"phantoms": {"lungs Dice": 0.5}, "cross-validation": interval}))
    assert 0 < page.index("Scores: cross-validation") < page.index("Scores: phantoms")
    assert "0.961 (95 % interval 0.900 to 0.975)" in page
    assert "twelve &lt;patients&gt;" in page


def test_the_page_knows_the_papers_networks() -> None:
    of_paper = replace(find(DEFAULT).card, network={"name": "unet", "settings": CATALOGUE[0].settings})
    page = model_page(of_paper)
    for said in (CATALOGUE[0].title, CATALOGUE[0].name, CATALOGUE[0].paper, "4.139 M"):
        assert said in page, said
    unknown = {"name": "unet", "settings": {"features": [3]}}
    other = replace(of_paper, network=unknown, recipe={"paper": "Nobody"})
    assert "Nobody" in model_page(other) and "Parameters" not in model_page(other)


def test_what_is_no_dice_is_not_called_so() -> None:
    healthy: dict[str, object] = {"a chest without findings": {"painted % of the lungs": 0.046}}
    assert scores_in_words(card(healthy)) == "a chest without findings: painted % of the lungs 0.05"


def test_models_of_the_same_title_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = available()[0]
    twin = replace(shipped, card=replace(shipped.card, id="twin"), origin="installed")
    again = replace(twin, card=replace(twin.card, id="again"))
    monkeypatch.setattr(models, "available", lambda *_: (shipped, twin, again))
    titles = [choice.title for choice in model_choices(None)]
    assert len(set(titles)) == 3 and all(shipped.card.title in title for title in titles)
    assert [title.split(":")[0] for title in titles] == [
        shipped.card.id,
        "twin",
        "again",
    ]  # where it is cut off


def test_a_version_that_cannot_be_read_hides_no_other(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = available()[0].card
    learned = dataclasses.replace(shipped, id="learned", parent=shipped.id).to_json()
    cards = {"broken": "{}", "learned": learned}
    versions = [
        SimpleNamespace(id=name, state=ModelState.KEPT, base=shipped.id, card=card)
        for name, card in cards.items()
    ]
    monkeypatch.setattr(WorkspaceModels, "list", lambda self: versions)
    choices = model_choices(Workspace.open(f"{tmp_path}/w.zarr"))
    assert [one.name for one in choices if one.version] == ["learned"]
    assert "broken" in caplog.text
