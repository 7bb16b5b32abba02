"""A model's card, short for the panel and long for its tooltip."""

from __future__ import annotations

from html import escape

from napari_covseg.models.card import ModelCard


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
        "Scored": str(card.scores.get("protocol", "")),
        "Comes from": card.parent,
        "Licence": card.licence,
    }
    return "<br>".join(f"<b>{name}:</b> {escape(text)}" for name, text in rows.items() if text)


def scores_in_words(card: ModelCard) -> str:
    """Return the Dice of a card's outputs, and on whom it was measured; empty if there is none."""
    for part, value in {**card.scores, "": card.scores}.items():
        found = {name: value[name] for name in card.outputs if isinstance(value, dict) and name in value}
        numbers = [f"{name} {dice:.2f}" for name, dice in found.items() if isinstance(dice, int | float)]
        if numbers:
            on = f" ({part.replace('_', ' ')})" if part else ""
            return f"Dice{escape(on)}: {escape(', '.join(numbers))}"
    return ""
