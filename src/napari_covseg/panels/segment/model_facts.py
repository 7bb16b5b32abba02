"""A model's card, short for the panel and long for its tooltip."""

from __future__ import annotations

from html import escape
from typing import Any

from napari_covseg.cases import OpenCase
from napari_covseg.labels import OUTPUTS
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import available

_FIRST = ("cross-validation", "test")


def model_facts(card: ModelCard) -> str:
    """Return what one needs to know before running a model, as rich text."""
    lines = [escape(card.summary), scores_in_words(card), escape(card.use)]
    if card.licence:
        lines.append(f"Licence of the weights: {escape(card.licence)}")
    return "<br>".join(line for line in lines if line)


def model_details(card: ModelCard) -> str:
    """Return the whole card as rich text."""
    rows = {
        "Name": card.id,
        "Made": card.created,
        "Trained on": card.trained_on,
        "Finds": ", ".join(card.outputs),
        "Scored": how_scored(card),
        "Comes from": card.parent,
        "Licence": card.licence,
    }
    return "<br>".join(f"<b>{name}:</b> {escape(text)}" for name, text in rows.items() if text)


def scores_in_words(card: ModelCard) -> str:
    """Return the scores of a card, Dice if it has any, and on whom they were measured; empty without any."""
    for part, scores in measurements(card):
        # a training run scores its outputs by their names alone
        dice = [name for name in scores if name.endswith(" Dice") or name in OUTPUTS]
        named = dice or list(scores)
        numbers = [
            f"{name.removesuffix(' Dice')} {scores[name]:.2f}"
            for name in named
            if isinstance(scores[name], int | float)
        ]
        if numbers:
            return f"{'Dice, ' * bool(dice)}{escape(part)}: {escape(', '.join(numbers))}"
    return ""


def how_scored(card: ModelCard) -> str:
    """Return how a card's scores were measured."""
    parts = [card.scores, *(scores for _, scores in measurements(card))]
    return next((str(part["protocol"]) for part in parts if "protocol" in part), "")


def measurements(card: ModelCard) -> list[tuple[str, dict[str, Any]]]:
    """Return the measurements of a card, those on patients that say most first."""
    parts = [(part, scores) for part, scores in card.scores.items() if isinstance(scores, dict)]
    return sorted(parts, key=lambda named: _FIRST.index(named[0]) if named[0] in _FIRST else len(_FIRST))


def last_model(case: OpenCase) -> str:
    """Return what the model is called that predicted a case last, empty if none has."""
    runs = [run for run in case.case.runs() if "refined" not in run.settings]
    if not runs:
        return ""
    titles = {entry.card.id: entry.card.title for entry in available()}
    return titles.get(runs[-1].model_id, runs[-1].model_id)
