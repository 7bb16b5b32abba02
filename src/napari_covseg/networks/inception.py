"""Inception-v3 (Szegedy 2015), with which El-bana 2020 recognises what a picture shows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.labels import CLASSES
from napari_covseg.networks.blocks import he_normal
from napari_covseg.networks.classifier import Classifier

Step = tuple[int, int | tuple[int, int]]
"""Channels of a convolution, and its kernel."""


@dataclass(frozen=True)
class Branch:
    """One way through a mixed block.

    Attributes
    ----------
    name : str
        The convolutions are called after it: numbered, unless there is but one. ``"branch_pool"`` begins
        with a pooling.
    steps : tuple of Step
        Convolutions one after the other.
    ends : tuple of Step
        Convolutions side by side after them.
    """

    name: str
    steps: tuple[Step, ...] = ()
    ends: tuple[Step, ...] = ()

    def names(self) -> list[str]:
        """Return the names of the convolutions, `steps` before `ends`."""
        if len(self.steps) == 1 and not self.ends:
            return [self.name]
        parts = [str(number) for number in range(1, len(self.steps) + 1)]
        parts += [f"{len(self.steps) + 1}{letter}" for letter in "ab"[: len(self.ends)]]
        return [f"{self.name}_{part}" for part in parts]


def _square(pooled: int) -> tuple[Branch, ...]:
    return (
        Branch("branch1x1", ((64, 1),)),
        Branch("branch5x5", ((48, 1), (64, 5))),
        Branch("branch3x3dbl", ((64, 1), (96, 3), (96, 3))),
        Branch("branch_pool", ((pooled, 1),)),
    )


def _crossed(thin: int) -> tuple[Branch, ...]:
    wide, high = (1, 7), (7, 1)
    return (
        Branch("branch1x1", ((192, 1),)),
        Branch("branch7x7", ((thin, 1), (thin, wide), (192, high))),
        Branch("branch7x7dbl", ((thin, 1), (thin, high), (thin, wide), (thin, high), (192, wide))),
        Branch("branch_pool", ((192, 1),)),
    )


_FANNED = (
    Branch("branch1x1", ((320, 1),)),
    Branch("branch3x3", ((384, 1),), ((384, (1, 3)), (384, (3, 1)))),
    Branch("branch3x3dbl", ((448, 1), (384, 3)), ((384, (1, 3)), (384, (3, 1)))),
    Branch("branch_pool", ((192, 1),)),
)
_HALVES = {
    "Mixed_6a": (
        Branch("branch3x3", ((384, 3),)),
        Branch("branch3x3dbl", ((64, 1), (96, 3), (96, 3))),
        Branch("branch_pool"),
    ),
    "Mixed_7a": (
        Branch("branch3x3", ((192, 1), (320, 3))),
        Branch("branch7x7x3", ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3))),
        Branch("branch_pool"),
    ),
}
MIXED = {
    "Mixed_5b": _square(32),
    "Mixed_5c": _square(64),
    "Mixed_5d": _square(64),
    "Mixed_6a": _HALVES["Mixed_6a"],
    "Mixed_6b": _crossed(128),
    "Mixed_6c": _crossed(160),
    "Mixed_6d": _crossed(160),
    "Mixed_6e": _crossed(192),
    "Mixed_7a": _HALVES["Mixed_7a"],
    "Mixed_7b": _FANNED,
    "Mixed_7c": _FANNED,
}
"""Branches of each mixed block, in the order in which a slice meets them."""


class Mixed(nn.Module):
    """Several branches of convolutions side by side, whose maps are concatenated.

    Parameters
    ----------
    in_channels : int
    branches : sequence of Branch
    halves : bool
        Whether the map becomes half as large: the last convolution of each branch and the pooling, which
        then takes the maximum, have stride 2 and no padding. Otherwise the size stays, and the pooling takes
        the mean.
    width : float
        Factor of all channels.

    Attributes
    ----------
    channels : int
        Of the map that comes out.
    """

    def __init__(self, in_channels: int, branches: Sequence[Branch], halves: bool, width: float) -> None:
        super().__init__()
        self.branches, self.halves = tuple(branches), halves
        self.channels = 0
        for branch in branches:
            channels = in_channels
            for number, (name, (out, kernel)) in enumerate(
                zip(branch.names(), (*branch.steps, *branch.ends), strict=True), 1
            ):
                last = halves and number == len(branch.steps)
                self.add_module(name, _unit(channels, int(out * width), kernel, 2 if last else 1, not last))
                if number <= len(branch.steps):
                    channels = int(out * width)
            self.channels += sum(int(out * width) for out, _ in branch.ends) or channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the map, shape (N, channels, H, W), or half of both sizes."""
        maps: list[Tensor] = []
        for branch in self.branches:
            y = x
            if branch.name == "branch_pool":
                y = F.max_pool2d(x, 3, 2) if self.halves else F.avg_pool2d(x, 3, 1, 1)
            names = branch.names()
            for name in names[: len(branch.steps)]:
                y = self.get_submodule(name)(y)
            maps += [self.get_submodule(name)(y) for name in names[len(branch.steps) :]] or [y]
        return torch.cat(maps, 1)


class InceptionV3(Classifier):
    """Inception-v3 without its auxiliary head: 21.790 M parameters for two classes, 21.794 M for four.

    C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna: Rethinking the Inception Architecture for
    Computer Vision, arXiv:1512.00567 (2015). Tensors are called and shaped as torchvision's, so that a file
    of its weights can be loaded (`classifier.load_weights`).

    Slices in [0, 1] are repeated in three channels and brought to [-1, 1]: to what torchvision's
    ``transform_input`` makes of a picture that ImageNet's mean and deviation have normalised.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit.
    dropout : float
        Before the last layer, as published.
    width : float
        Factor of the channels of every layer; 1 as published.
    """

    last_layer = "fc"
    heat_map_layer = "Mixed_7c"
    smallest = 75
    ignored = ("AuxLogits.",)

    def __init__(
        self, outputs: Sequence[str] = CLASSES[:2], dropout: float = 0.5, width: float = 1.0
    ) -> None:
        super().__init__(outputs)
        stem = [int(channels * width) for channels in (32, 32, 64, 80, 192)]
        self.Conv2d_1a_3x3 = _unit(3, stem[0], 3, 2)
        self.Conv2d_2a_3x3 = _unit(stem[0], stem[1], 3)
        self.Conv2d_2b_3x3 = _unit(stem[1], stem[2], 3, padded=True)
        self.Conv2d_3b_1x1 = _unit(stem[2], stem[3], 1)
        self.Conv2d_4a_3x3 = _unit(stem[3], stem[4], 3)
        channels = stem[4]
        for name, branches in MIXED.items():
            block = Mixed(channels, branches, name in _HALVES, width)
            self.add_module(name, block)
            channels = block.channels
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, len(self.outputs))
        he_normal(self)

    def features(self, slices: Tensor) -> Tensor:
        """Return the means of the last map's channels, shape (N, 2048)."""
        x = (2 * slices - 1).expand(-1, 3, -1, -1)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in MIXED:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits, shape (N, len(outputs))."""
        logits: Tensor = self.fc(self.dropout(features))
        return logits


def _unit(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    padded: bool = False,
) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU, by torchvision's names."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2, width // 2) if padded else (0, 0)
    convolution = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=False)
    return nn.Sequential(
        OrderedDict(conv=convolution, bn=nn.BatchNorm2d(out_channels, eps=1e-3), relu=nn.ReLU(inplace=True))
    )
