"""A model's card, short for the panel and long for its tooltip."""

from __future__ import annotations

from html import escape
from typing import Any

from napari_covseg.models.card import ModelCard


def model_facts(card: ModelCard) -> str:
    """Return what one needs to know before running a model, as rich text."""
    lines = [escape(card.summary)]
    scores = dice_scores(card.scores)
    if scores:
        lines.append(
            "Dice on patients it never saw: " + ", ".join(f"{escape(k)} {v:.2f}" for k, v in scores.items())
        )
    lines.append(escape(card.use))
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
        "Scored": str(card.scores.get("protocol", "")),
        "Comes from": card.parent,
        "Licence": card.licence,
    }
    return "<br>".join(f"<b>{name}:</b> {escape(text)}" for name, text in rows.items() if text)


def dice_scores(scores: dict[str, Any]) -> dict[str, float]:
    """Return the Dice of each output from a card's scores, empty if it has none."""
    dice = scores.get("dice", scores)
    return {name: float(value) for name, value in dice.items() if isinstance(value, int | float)}
