"""Write the page of the networks and a diagram of each: `networks.md`, `images/networks/*.svg`.

    python docs/make_networks.py [--out docs]

The numbers are those of the catalogue, the diagrams are drawn from the networks as they are built.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_covseg.networks.catalogue import CATALOGUE, NetworkEntry

HERE = Path(__file__).parent
TEXTS = HERE / "network_texts.toml"
INTRODUCTION = """\
# Networks

<!-- Written by docs/make_networks.py: change that or network_texts.toml, not this. -->

Every network of five papers about COVID-19 on chest CT that labels pixels, as its paper describes it. \
`covseg models --all` lists them, `covseg train --recipe NAME` [trains one](training.md#recipes), \
`covseg assess` [compares them](assessment.md); the [results](results.md) tell how they do.

All take slices of one channel and any size, and give one map of logits for each output. Diagrams are \
drawn from the networks as they are built, for a slice of 256 × 256 and the outputs lungs and lesion. In \
a box stand the channels of its map, and its size. Parameters are those with the lesion as the only \
output. GMAC are billions of multiply-adds for one such slice: convolutions and linear layers, without \
normalisation, pooling and resizing.
"""


def page(texts: dict[str, Any]) -> str:
    """Return the page as Markdown.

    Parameters
    ----------
    texts : dict
        `network_texts.toml`.
    """
    parts = [INTRODUCTION]
    papers = dict.fromkeys(entry.paper for entry in CATALOGUE)
    for paper in papers:
        parts.append(f"## {paper}\n\n{texts['paper'][paper]['citation']}\n")
        parts += [section(entry, texts["network"][entry.name]) for entry in own() if entry.paper == paper]
    return "\n".join(parts)


def own() -> Iterator[NetworkEntry]:
    """Yield the papers' own networks, without presets."""
    return (entry for entry in CATALOGUE if not entry.preset_of)


def section(entry: NetworkEntry, text: dict[str, str]) -> str:
    """Return what there is to say of a network and its presets."""
    rows = [
        f"| `{one.name}` | {one.title} | {one.parameters:,} | {one.gmac:.3f} |"
        for one in CATALOGUE
        if entry.name in (one.name, one.preset_of)
    ]
    return "\n".join(
        [
            f"### {entry.title} {{ #{entry.name} }}\n",
            f"![{entry.title} of {entry.paper}](images/networks/{entry.name}.svg)\n",
            f"{text['special']}\n",
            f"**Open in the paper, and chosen here.** {text['open']}\n",
            f"Parameters in the paper: {text['reported']}.\n",
            "| Name | | Parameters | GMAC at 256² |",
            "| --- | --- | ---: | ---: |",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Write the page and the diagrams."""
    from network_diagram import draw

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE)
    out = parser.parse_args().out
    pictures = out / "images" / "networks"
    pictures.mkdir(parents=True, exist_ok=True)
    for entry in own():
        (pictures / f"{entry.name}.svg").write_text(draw(entry), encoding="utf-8")
    texts = tomllib.loads(TEXTS.read_text(encoding="utf-8"))
    (out / "networks.md").write_text(page(texts), encoding="utf-8")
    print(f"wrote {out / 'networks.md'} and {len(list(own()))} diagrams")


if __name__ == "__main__":
    main()
