"""Fill in, while the documentation is built, what other files hold: model cards and pictures.

The cards come from the model files themselves, so that the page cannot disagree with what is shipped. A
picture's mark in a page becomes the picture that `make_pictures.py` took, or nothing where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_covseg.models.card import read_card

REPOSITORY = Path(__file__).parent.parent
WEIGHTS = REPOSITORY / "src" / "napari_covseg" / "models" / "weights"
TO_INSTALL = REPOSITORY / "weights"
IMAGES = Path(__file__).parent / "images"
CARDS = "<!-- model cards -->"
PICTURE = re.compile(r"<!-- picture: (?P<name>[\w-]+) \| (?P<caption>.*?) -->")
# What a reader asks first; whatever else a card holds follows.
FIRST = ("summary", "use", "licence", "outputs", "scores", "trained_on", "split", "network", "preparation")
HEADLINE = ("id", "title")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks in a page by what they stand for."""
    markdown = PICTURE.sub(picture, markdown)
    if CARDS not in markdown:
        return markdown
    files = [path for folder in (WEIGHTS, TO_INSTALL) for path in sorted(folder.glob("*.safetensors"))]
    return markdown.replace(CARDS, "\n\n".join(section(path) for path in files) or "No model is shipped yet.")


def picture(mark: re.Match[str]) -> str:
    """One picture with its caption."""
    name, caption = mark["name"], mark["caption"]
    return f"![{caption}](images/{name}.png)" if (IMAGES / f"{name}.png").exists() else ""


def section(path: Path) -> str:
    """One model's card as Markdown."""
    card = asdict(read_card(path))
    names = [n for n in FIRST if n in card] + [n for n in card if n not in FIRST and n not in HEADLINE]
    to_install = f", `covseg models install {card['id']}`" if path.parent == TO_INSTALL else ""
    lines = [
        f"## {card['id']}: {card['title']}",
        "",
        f"`{path.name}`, {path.stat().st_size / 1e6:.1f} MB{to_install}",
        "",
    ]
    for name in names:
        if card[name] not in (None, "", (), {}, []):
            lines += [f"**{name.replace('_', ' ').capitalize()}**", "", *block(card[name]), ""]
    return "\n".join(lines)


def block(value: Any) -> list[str]:
    """A card's field as Markdown lines: settings as a table, lists and sentences as they are."""
    if isinstance(value, dict):
        return ["| | |", "| --- | --- |", *(f"| {key} | {cell(v)} |" for key, v in flat(value))]
    return [cell(value)]


def flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The rows of nested settings, their names joined by a slash."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{key} / ")
        else:
            yield f"{before}{key}", value


def cell(value: Any) -> str:
    """One value as inline text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
