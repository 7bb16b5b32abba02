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

from napari_covseg.networks.catalogue import CATALOGUE, CLASSIFIERS, NetworkEntry

HERE = Path(__file__).parent
TEXTS = HERE / "network_texts.toml"
INTRODUCTION = """\
# Networks

<!-- Written by docs/make_networks.py: change that or network_texts.toml, not this. -->

Every network of five papers about COVID-19 on chest CT that labels pixels, as its paper describes it; and, \
[at the end](#what-a-slice-shows), those that name what a whole slice shows. \
`covseg models --all` lists them, `covseg train --recipe NAME` [trains one](training.md#recipes), \
`covseg assess` [compares them](assessment.md); the [results](results.md) tell how they do.

Those that label pixels take slices of one channel and any size, and give one map of logits for each output. \
Diagrams are \
drawn from the networks as they are built, for a slice of 256 × 256 and the outputs lungs and lesion. In \
a box stand the channels of its map, and its size. Parameters are those with the lesion as the only \
output. GMAC are billions of multiply-adds for one such slice: convolutions and linear layers, without \
normalisation, pooling and resizing.
"""

CLASSIFYING = """\
## What a slice shows

The first two stages of Elbana 2020: a network that recognises which of several classes a picture is of, \
and one that names the manifestations of a slice. Each gives one logit for each output: classes exclude \
each other (softmax), manifestations do not (sigmoid). They take slices of one channel in [0, 1], as the \
others do; what a body expects beyond that is its own first step. They are not among the networks that \
can be chosen for segmentation.

`networks.classifier.load_weights` gives a network the weights of the same one from a file: a state dict \
of PyTorch, read without running anything in it, or safetensors. Every tensor has to be there in its \
shape; of Inception-v3 the names and shapes are torchvision's, and its auxiliary head is dropped. Where \
the file tells another number of classes apart, the last layer begins at random.
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
    parts.append(CLASSIFYING)
    named = (entry for entry in CLASSIFIERS if not entry.preset_of)
    parts += [classifier_section(entry, texts["network"][entry.name]) for entry in named]
    return "\n".join(parts)


def own() -> Iterator[NetworkEntry]:
    """Yield the papers' own networks that label pixels, without presets."""
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


def classifier_section(entry: NetworkEntry, text: dict[str, str]) -> str:
    """Return the same of a network that names what a slice shows, which has no diagram."""
    rows = [
        f"| `{one.name}` | {one.title} | {', '.join(one.classes)} | {one.parameters:,} | {one.gmac:.3f} "
        f"at {one.size}² |"
        for one in CLASSIFIERS
        if entry.name in (one.name, one.preset_of)
    ]
    return "\n".join(
        [
            f"### {entry.title} {{ #{entry.name} }}\n",
            f"{text['special']}\n",
            f"**Open in the paper, and chosen here.** {text['open']}\n",
            f"Parameters in the paper: {text['reported']}.\n",
            "| Name | | Outputs | Parameters | GMAC |",
            "| --- | --- | --- | ---: | ---: |",
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
