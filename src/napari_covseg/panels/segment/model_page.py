"""A model's card in full, as a page to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from napari_covseg.models.card import ModelCard
from napari_covseg.networks.catalogue import CATALOGUE, NetworkEntry
from napari_covseg.panels.segment.model_facts import measurements

_INTERVAL = "95 % interval"
_MIRRORED = {
    "none": "none",
    "lungs": "a second look at the lungs, turned by 180 degrees",
    "flip": "the slice and its mirror image",
    "flips": "the slice and all its mirror images",
}


def model_page(card: ModelCard, place: str = "") -> str:
    """Return everything that a card says, as rich text.

    Parameters
    ----------
    card : ModelCard
    place : str
        Where the model is, in words.
    """
    parts = [f"<h3>{escape(card.title)}</h3>", f"<p>{escape(card.summary)}</p>"]
    parts.append(f"<p><b>{escape(card.use)}</b></p>")
    parts.append(_table({"Name": card.id, "Where": place, "Made": card.created, "Comes from": card.parent}))
    parts += _section("Network", _network(card))
    parts += _section("Finds", _finds(card))
    parts += _section("Scores", dict(_scores(card.scores)))
    for name, measured in measurements(card):
        parts += _section(f"Scores: {name}", dict(_scores(measured)))
    parts += _section("Data", _data(card))
    parts += _section("How a slice is prepared", dict(_flat(card.preparation)))
    parts += _section("How it was trained", dict(_flat(card.recipe)))
    return "\n".join(parts)


def network_of(card: ModelCard) -> NetworkEntry | None:
    """Return the paper's network that a model is, None if it is no network of the catalogue."""
    settings = card.network.get("settings", {})
    for entry in CATALOGUE:
        if entry.network == card.network.get("name") and entry.settings == settings:
            return entry
    return None


def _network(card: ModelCard) -> dict[str, str]:
    entry = network_of(card)
    rows = {}
    if entry is not None:
        variant = f", a variant of {entry.preset_of}" if entry.preset_of else ""
        rows["Network"] = f"{entry.title} ({entry.name}{variant})"
        rows["Paper"] = entry.paper
        rows["Parameters"] = f"{entry.parameters / 1e6:.3f} M; {entry.gmac_256:.2f} GMAC for 256 × 256 pixels"
    else:
        rows["Network"] = str(card.network.get("name", ""))
        rows["Paper"] = str(card.recipe.get("paper", ""))
    return rows | dict(_flat(card.network.get("settings", {})))


def _finds(card: ModelCard) -> dict[str, str]:
    rows = {name: f"from a probability of {card.thresholds[name]:g}" for name in card.outputs}
    return rows | {"Mirror images": _MIRRORED.get(card.tta, card.tta)}


def _scores(measured: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give each figure its interval, and the protocol last."""
    for name, value in measured.items():
        if isinstance(value, dict) or name == "protocol" or name.endswith(_INTERVAL):
            continue
        for stem in (name, name.rsplit(" ", 1)[0]):
            interval = measured.get(f"{stem} {_INTERVAL}")
            if isinstance(interval, list | tuple):
                low, high = (f"{end:.3f}" if isinstance(end, float) else str(end) for end in interval)
                yield name, f"{_said(value)} ({_INTERVAL} {low} to {high})"
                break
        else:
            yield name, _said(value)
    if measured.get("protocol"):
        yield "Protocol", str(measured["protocol"])


def _data(card: ModelCard) -> dict[str, str]:
    rows = {"Learned from": card.trained_on}
    for part, patients in card.split.items():
        rows[part.capitalize()] = f"{len(patients)}: {', '.join(map(str, patients))}" if patients else ""
    return rows | {"Licence of the weights": card.licence}


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name} / ")
        else:
            yield name, _said(value)


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_said(one) for one in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _section(title: str, rows: dict[str, str]) -> list[str]:
    table = _table(rows)
    return [f"<h4>{escape(title)}</h4>", table] if table else []


def _table(rows: dict[str, str]) -> str:
    lines = [
        f"<tr><td style='padding-right: 12px'>{escape(name)}</td><td>{escape(text)}</td></tr>"
        for name, text in rows.items()
        if text not in ("", "None")
    ]
    return f"<table>{''.join(lines)}</table>" if lines else ""
