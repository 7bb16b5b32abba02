"""Building blocks that several of the papers' networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(
    in_channels: int, out_channels: int, kernel: int = 3, *, dilation: int = 1, stride: int = 1
) -> list[nn.Module]:
    """Convolution that keeps the size (at stride 1), and batch normalisation, for a `Sequential`.

    The convolution carries no bias: the normalisation that follows would cancel it.
    """
    return [
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=dilation * (kernel - 1) // 2,
            dilation=dilation,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
    ]


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int = 3, *, dilation: int = 1, stride: int = 1
) -> list[nn.Module]:
    """`conv_bn` and a ReLU, for a `Sequential`."""
    layers = conv_bn(in_channels, out_channels, kernel, dilation=dilation, stride=stride)
    return [*layers, nn.ReLU(inplace=True)]


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two times (3x3 convolution, batch normalisation, ReLU)."""
    return nn.Sequential(*conv_bn_relu(in_channels, out_channels), *conv_bn_relu(out_channels, out_channels))


class SqueezeExcite(nn.Module):
    """Scale each channel by what a small network makes of all channels' means (Hu 2018).

    Parameters
    ----------
    channels : int
    reduction : int
        The hidden layer has ``channels // reduction`` units, and at least one.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, shape (N, C, H, W), with its channels scaled."""
        gate: Tensor = self.gate(x.mean((2, 3)))
        return x * gate[:, :, None, None]


def resize_to(x: Tensor, like: Tensor) -> Tensor:
    """Return `x` at the height and width of `like`, bilinear; odd sizes lose a row when pooled."""
    # an exported graph must hold the step, and not even ask whether the example's size needs it
    if not torch.compiler.is_compiling() and x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def he_normal(network: nn.Module, before: Literal["relu", "linear"] = "relu") -> None:
    """Draw all convolutions' weights from He's normal distribution; biases begin at zero.

    For what comes after most of them: a ReLU, or nothing that halves the variance.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity=before)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def by_name(logits: Tensor, outputs: Sequence[str], suffix: str = "") -> dict[str, Tensor]:
    """Split logits of shape (N, len(outputs), H, W) into one (N, 1, H, W) per name."""
    return {f"{name}{suffix}": logits[:, i : i + 1] for i, name in enumerate(outputs)}


def mean_logits(heads: Sequence[Tensor]) -> Tensor:
    """Return the logits of the mean of the heads' probabilities; never infinite for finite logits."""
    stacked = torch.stack(list(heads))
    yes = torch.logsumexp(F.logsigmoid(stacked), 0)
    return yes - torch.logsumexp(F.logsigmoid(-stacked), 0)


def union_logits(first: Tensor, second: Tensor) -> Tensor:
    """Return the logits of "at least one of both", which are taken as independent.

    1 - (1 - p)(1 - q), written so that nothing is lost where both are near 0 or 1.
    """
    return torch.logsumexp(torch.stack([first, second, first + second]), 0)
