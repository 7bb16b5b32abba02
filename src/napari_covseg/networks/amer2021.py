"""The residual dilated U-Nets of Amer 2021: RD-UNet, and the ResDUNet that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.networks.blocks import SqueezeExcite, by_name, conv_bn, conv_bn_relu, he_normal, resize_to

Residual = Literal["concat", "add", "none"]
Dilated = Literal["half", "full", "none"]
INCREASE_DECREASE = ((1, 2, 3, 3, 2, 1), (1, 2, 2, 1))
DECREASE = ((3, 3, 2, 2, 1, 1), (2, 2, 1, 1))


class ResidualUnit(nn.Module):
    """Two convolutions F(x), joined with the unit's input x (section 3.1, Eq. 1-2).

    ``"concat"``: x and F(x) are concatenated (section 3), and a 1x1 convolution brings them back
    to the level's width, which the paper does not mention: without it the widths would grow
    to 497 channels. ``"add"``: f(h(x) + F(x)) as in Eq. 1-2, f a ReLU, h a 1x1 convolution where
    the widths differ. ``"none"``: F(x) alone.
    """

    def __init__(self, in_channels: int, out_channels: int, residual: Residual, dropout: float) -> None:
        super().__init__()
        self.residual = residual
        self.body = nn.Sequential(
            *conv_bn_relu(in_channels, out_channels),
            nn.Dropout(dropout),
            *conv_bn(out_channels, out_channels),
        )
        if residual == "concat":
            self.merge = nn.Sequential(*conv_bn_relu(in_channels + out_channels, out_channels, 1))
        elif residual == "add" and in_channels != out_channels:
            self.merge = nn.Sequential(*conv_bn(in_channels, out_channels, 1))
        else:
            self.merge = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H, W) of `x`, shape (N, in_channels, H, W)."""
        body: Tensor = self.body(x)
        if self.residual == "add":
            return F.relu(self.merge(x) + body)
        body = F.relu(body)
        if self.residual == "none":
            return body
        merged: Tensor = self.merge(torch.cat([x, body], 1))
        return merged


def dilated_module(channels: int, width: int, dilations: Sequence[int]) -> nn.Sequential:
    """DC module on a skip: 3x3 convolutions with these dilations, one after the other (section 3.3)."""
    widths = [channels, *([width] * len(dilations))]
    layers: list[nn.Module] = []
    for (a, b), dilation in zip(pairwise(widths), dilations, strict=True):
        layers += conv_bn_relu(a, b, dilation=dilation)
    return nn.Sequential(*layers)


class RDUNet(nn.Module):
    """RD-UNet: residual units with squeeze-and-excitation, dilated convolutions on the skips (section 3).

    Encoder level: residual unit, SE; its skip: DC module; then 2x2 max-pooling. Decoder level:
    1x1 convolution to the level's width, bilinear to the skip's size, concatenated with the DC
    module's output, residual unit, SE. The default setting has 4.558 M parameters for one
    output; the paper says 4.5 M.

    Where the paper is open: the widths (see `unet.UNet`); the 1x1 convolution, which before the
    up-sampling costs a quarter of what it would after; and the DC module's width: half of the
    skip's. "A filter size the same as the input" read as full width (``dc="full"``) has 5.224 M.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit channel, for example ``("lungs", "lesion")``.
    features : sequence of int
        Channels of the levels that have a skip, from full resolution downwards.
    bottleneck : int
        Channels at the bottom.
    residual : {"concat", "add", "none"}
        How a unit joins its input and its convolutions; see `ResidualUnit`.
    se : bool
        Squeeze-and-excitation after each unit (section 3.2), reduction 8.
    dc : {"half", "full", "none"}
        Width of the DC modules, in terms of the skip's; ``"none"`` leaves the skips as they are.
    dilations : sequence of sequence of int
        Of the DC modules: for the upper half of the levels, and for the lower.
    dropout : float
        Probability after the first ReLU of each unit.

    Raises
    ------
    ValueError
        If a switch has another value.
    """

    def __init__(
        self,
        outputs: Sequence[str] = ("lesion",),
        features: Sequence[int] = (16, 32, 64, 128),
        bottleneck: int = 512,
        residual: Residual = "concat",
        se: bool = True,
        dc: Dilated = "half",
        dilations: Sequence[Sequence[int]] = INCREASE_DECREASE,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if residual not in ("concat", "add", "none") or dc not in ("half", "full", "none"):
            raise ValueError(f"no residual {residual!r}, or no dc {dc!r}")
        self.outputs = tuple(outputs)

        def unit(a: int, b: int) -> nn.Sequential:
            return nn.Sequential(ResidualUnit(a, b, residual, dropout), *([SqueezeExcite(b)] if se else []))

        self.encoders = nn.ModuleList(unit(a, b) for a, b in pairwise([1, *features]))
        self.bottom = unit(features[-1], bottleneck)
        skips = [width // 2 if dc == "half" else width for width in features]
        upper, lower = dilations if dc != "none" else ((), ())
        self.skips = nn.ModuleList(
            dilated_module(width, skip, upper if 2 * level < len(features) else lower)
            for level, (width, skip) in enumerate(zip(features, skips, strict=True))
        )
        below = [bottleneck, *reversed(features)]
        self.ups = nn.ModuleList(nn.Sequential(*conv_bn_relu(a, b, 1)) for a, b in pairwise(below))
        self.decoders = nn.ModuleList(
            unit(width + skip, width) for width, skip in reversed(list(zip(features, skips, strict=True)))
        )
        self.head = nn.Conv2d(features[0], len(self.outputs), 1)
        he_normal(self)

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        """Compute logits.

        Parameters
        ----------
        slices : Tensor, shape (N, 1, H, W)
            Prepared slices in [0, 1]; any H and W of at least 16.

        Returns
        -------
        dict of str to Tensor
            One tensor of shape (N, 1, H, W) per name in `outputs`.
        """
        skips: list[Tensor] = []
        x = slices
        for encoder, skip in zip(self.encoders, self.skips, strict=True):
            x = encoder(x)
            skips.append(skip(x))
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            skipped = skips.pop()
            x = decoder(torch.cat([skipped, resize_to(up(x), skipped)], 1))
        return by_name(self.head(x), self.outputs)


class ResDUNet(RDUNet):
    """ResDUNet, with which Amer 2021 compares (Amer 2020 of left ventricles; 4.3 M, here 4.252 M).

    "U-Net with residual blocks integrated with squeeze and excitation unit, and utilizes dilated
    convolution with decremental dilation rates along the encoding path" (section 4.2) is all
    that is said: additive units as in Eq. 1-2, and RD-UNet's modules on the skips with
    decreasing dilations, meet the count.

    Parameters
    ----------
    outputs, features, bottleneck, residual, se, dc, dilations, dropout
        As for `RDUNet`.
    """

    def __init__(
        self,
        outputs: Sequence[str] = ("lesion",),
        features: Sequence[int] = (16, 32, 64, 128),
        bottleneck: int = 512,
        residual: Residual = "add",
        se: bool = True,
        dc: Dilated = "half",
        dilations: Sequence[Sequence[int]] = DECREASE,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(outputs, features, bottleneck, residual, se, dc, dilations, dropout)
