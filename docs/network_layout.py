"""Where each stage of a network is drawn, and what kind of stage it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from napari_covseg.networks.catalogue import NetworkEntry


@dataclass(frozen=True)
class Place:
    """A stage in the diagram.

    Attributes
    ----------
    stage : str
        Name of the module.
    column : float
    kind : str
        Of the legend.
    row : float, optional
        By default the level of its map: 0 at full resolution.
    label : str
        What stands in the box; by default the map's channels.
    """

    stage: str
    column: float
    kind: str
    row: float | None = None
    label: str = ""


def layout(entry: NetworkEntry, network: nn.Module) -> tuple[list[Place], dict[str, str]]:
    """Return the places of a network's stages, and what each kind of stage does."""
    return LAYOUTS[entry.network](network, entry.settings)


Layout = tuple[list[Place], dict[str, str]]
_HEAD = "1×1 convolution: lungs and lesion"


def _u(network: Any, blocks: str, skips: str = "") -> list[Place]:
    """A U: encoders down, decoders up, what is on the skips in the middle or over the next deeper stage."""
    encoders = [f"encoders.{i}" for i in range(len(network.encoders))]
    if hasattr(network, "stem"):
        encoders.insert(0, "stem")
    if hasattr(network, "bottom"):
        encoders.append("bottom")
    decoders = [f"decoders.{i}" for i in range(len(network.decoders))]
    if isinstance(network, _raiu()):  # its decoders are listed from full resolution downwards
        decoders.reverse()
    line = [*encoders, *decoders]
    places = [Place(name, column, blocks) for column, name in enumerate(line)]
    if skips == "skips":
        places += [Place(f"skips.{i}", len(decoders), "dc") for i in range(len(network.skips))]
    if skips == "attention":
        places += [Place(f"attention.{i}", i + 1, "ssd") for i in range(len(network.attention))]
    return [*places, Place("head", len(line), "head")]


def _raiu() -> type:
    from napari_covseg.networks.punn2022 import RAIUNet

    return RAIUNet


def _unet(network: nn.Module, settings: dict[str, Any]) -> Layout:
    return _u(network, "conv"), {
        "conv": "Twice: 3×3 convolution, batch normalisation, ReLU",
        "head": _HEAD,
    }


def _rdunet(network: nn.Module, settings: dict[str, Any]) -> Layout:
    upper, lower = (", ".join(map(str, one)) for one in settings["dilations"])
    joined = {
        "concat": "concatenated with their input and brought back to the level's width by a 1×1 convolution",
        "add": "to which their input is added",
    }[settings["residual"]]
    return _u(network, "unit", "skips"), {
        "unit": f"Residual unit: two 3×3 convolutions with dropout {settings['dropout']:g} in between, "
        f"{joined}; then squeeze and excitation",
        "dc": f"Dilated module: 3×3 convolutions with dilations {upper} (upper levels), {lower} (lower ones)",
        "head": _HEAD,
    }


def _raiunet(network: nn.Module, settings: dict[str, Any]) -> Layout:
    return _u(network, "rib", "attention"), {
        "rib": "Residual inception block: twice separable 1×1, 3×3 and 5×5 convolutions beside hybrid "
        "pooling, plus a 3×3",
        "ssd": "Spectral spatial and depth attention: scales channels, then pixels by what the next deeper "
        "level shows",
        "head": _HEAD,
    }


def _chsnet(network: nn.Module, settings: dict[str, Any]) -> Layout:
    return [
        Place("lungs", 1.5, "net", 0, "RAIU-Net A"),
        Place("gate", 3.2, "gate", 0, "lungs"),
        Place("lesion", 4.9, "net", 0, "RAIU-Net B"),
    ], {
        "net": "A whole RAIU-Net as above: A finds the lungs, B the lesion",
        "gate": "What the slice is multiplied by: the lungs' probability in training, their mask afterwards",
    }


def _unetpp(network: Any, settings: dict[str, Any]) -> Layout:
    places = [Place(f"encoders.{i}", i, "conv") for i in range(len(network.encoders))]
    for name in network.nodes:
        i, j = map(int, name.split("_"))
        places.append(Place(f"nodes.{name}", i + 2 * j, "conv"))
    places += [Place(f"heads.{j}", 2 * int(j), "head", -1.15) for j in network.heads]
    return places, {
        "conv": "Twice: 3×3 convolution, batch normalisation, ReLU",
        "head": "1×1 convolution, a head for each depth: all are trained, their mean answers",
    }


def _resunet(network: nn.Module, settings: dict[str, Any]) -> Layout:
    return _u(network, "unit"), {
        "unit": "Pre-activation unit: twice batch normalisation, ReLU, 3×3 convolution, plus a 1×1 shortcut",
        "head": _HEAD,
    }


def _bifurcated(network: Any, settings: dict[str, Any]) -> Layout:
    depth = len(network.encoder.levels)
    places = [Place("encoder.stem", 0, "stem"), Place("encoder.inception", 1, "mib")]
    places += [Place(f"encoder.levels.{i}", i + 2, "conv") for i in range(depth)]
    for part, kind, turned in (("infection", "lesion", False), ("lungs", "lung", True)):
        for i in range(depth):
            row = float(depth + 1 + i) if turned else None
            places.append(Place(f"{part}.levels.{i}", depth + 2 + i, kind, row))
        end = 2.0 * depth if turned else None
        places.append(Place(f"{part}.inception", 2 * depth + 2, "mib", end))
        places.append(Place(f"{part}.head", 2 * depth + 3, "head", end))
    places.append(Place("merge", 2 * depth + 4, "merge"))
    return places, {
        "stem": "3×3 convolution",
        "mib": "Modified inception block: two 3×3, two 5×5 and two 9×9 convolutions, the larger ones dilated "
        "in the encoder, beside a 7×7 maximum; then two 3×3",
        "conv": "Two 3×3 convolutions",
        "lesion": "The same, in the infection decoder",
        "lung": "The same, in the lung decoder",
        "head": "1×1 convolution: infection, or lungs",
        "merge": "Merging network: the slice and the infection's probability, both times the lungs, through "
        "3×3 convolutions",
    }


def _deeplab(network: Any, settings: dict[str, Any]) -> Layout:
    blocks = len(network.backbone.middle)
    rates = settings["rates"]
    deep = math.log2(16)
    places = [Place("backbone.stem", 0, "conv")]
    places += [Place(f"backbone.entry.{i}", i + 1, "block") for i in range(3)]
    places.append(Place(f"backbone.middle.{blocks - 1}", 4, "block", label=f"{blocks} × 728"))
    places += [Place("backbone.exit.0", 5, "block"), Place("backbone.exit.1", 6, "block")]
    branches = ["centre", *(f"around.{i}" for i in range(len(rates))), "whole"]
    words = ["1×1", *(f"rate {rate}" for rate in rates), "mean"]
    for i, (name, word) in enumerate(zip(branches, words, strict=True)):
        places.append(Place(f"pyramid.{name}", 7.4, "aspp", deep + 0.82 * (i - 2), word))
    places += [
        Place("pyramid.join", 8.8, "conv"),
        Place("low", 4, "conv"),
        Place("refine", 9.8, "conv", label="2 × 256"),
        Place("head", 10.8, "head"),
    ]
    return places, {
        "conv": "Convolution, batch normalisation, ReLU; separable where there are two",
        "block": "Block of aligned Xception-65: three separable 3×3 convolutions, a shortcut; "
        f"{blocks} in the middle",
        "aspp": "Atrous spatial pyramid: 1×1, separable 3×3 at several dilations, and the mean of the map",
        "head": f"{_HEAD}, bilinear to the slice's size",
    }


LAYOUTS: dict[str, Callable[[Any, dict[str, Any]], Layout]] = {
    "unet": _unet,
    "resdunet": _rdunet,
    "rdunet": _rdunet,
    "raiunet": _raiunet,
    "chsnet": _chsnet,
    "unetpp": _unetpp,
    "resunet": _resunet,
    "bifurcated": _bifurcated,
    "deeplabv3plus": _deeplab,
}
