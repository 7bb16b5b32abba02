"""The bifurcated autoencoder of Yazdekhasty et al. 2020: one encoder, a lung and an infection decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.networks.blocks import conv_bn_relu, he_normal
from napari_covseg.networks.lung_gate import LungGate, check_outputs, name_logits


def convolution(in_channels: int, out_channels: int, kernel: int, dilation: int, norm: bool) -> nn.Sequential:
    """Convolution that keeps the size, batch normalisation if wished (then without bias), ReLU."""
    if norm:
        return nn.Sequential(*conv_bn_relu(in_channels, out_channels, kernel, dilation=dilation))
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation),
        nn.ReLU(inplace=True),
    )


def pair(in_channels: int, out_channels: int, kernel: int, dilation: int, norm: bool) -> nn.Sequential:
    """Two convolutions of the same form after each other."""
    return nn.Sequential(
        convolution(in_channels, out_channels, kernel, dilation, norm),
        convolution(out_channels, out_channels, kernel, dilation, norm),
    )


class ModifiedInception(nn.Module):
    """The modified inception block of section 2.1.1 and figure 2.

    Four branches see the same map: two 3x3 convolutions, two 5x5 and two 9x9 ones with
    dilation, and a 7x7 maximum at stride 1. They are concatenated and pass the figure's
    "convolution block". The paper gives no widths: each convolution branch has half of
    `channels`, the convolution block one and a half times, then once `channels`.

    Parameters
    ----------
    in_channels, channels : int
        Channels of the map that comes in and of the one that goes out.
    dilation : int
        The paper's ``d_rate``, of the 5x5 and the 9x9 branch.
    norm : bool
        Batch normalisation after each convolution.
    pass_input : bool
        Concatenate the incoming map as well, as a fifth branch.
    """

    def __init__(self, in_channels: int, channels: int, dilation: int, norm: bool, pass_input: bool) -> None:
        super().__init__()
        half = channels // 2
        self.pass_input = pass_input
        self.branches = nn.ModuleList(
            pair(in_channels, half, kernel, rate, norm)
            for kernel, rate in [(3, 1), (5, dilation), (9, dilation)]
        )
        joined = 3 * half + in_channels * (2 if pass_input else 1)
        self.fuse = nn.Sequential(
            convolution(joined, 3 * half, 3, 1, norm), convolution(3 * half, channels, 3, 1, norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute a map of `channels` channels and the size of `x`, shape (N, in_channels, H, W)."""
        parts = [*(branch(x) for branch in self.branches), F.max_pool2d(x, 7, 1, 3)]
        if self.pass_input:
            parts.append(x)
        out: Tensor = self.fuse(torch.cat(parts, 1))
        return out


class Encoder(nn.Module):
    """A 3x3 stem and a modified inception block at full resolution, then pooled double convolutions."""

    def __init__(self, features: Sequence[int], dilation: int, norm: bool, pass_input: bool) -> None:
        super().__init__()
        first = features[0]
        self.stem = convolution(1, first, 3, 1, norm)
        self.inception = ModifiedInception(first, first, dilation, norm, pass_input)
        self.levels = nn.ModuleList(pair(a, b, 3, 1, norm) for a, b in pairwise(features))

    def forward(self, slices: Tensor) -> list[Tensor]:
        """Compute the map of every level, from full resolution downwards."""
        maps = [self.inception(self.stem(slices))]
        for level in self.levels:
            maps.append(level(F.max_pool2d(maps[-1], 2)))
        return maps


class Decoder(nn.Module):
    """A U-Net decoder with a modified inception block at its end (section 2.1.2).

    Parameters
    ----------
    features : sequence of int
        Channels of the encoder's levels, from full resolution downwards.
    widths : sequence of int
        Channels of this decoder's levels, one fewer, from full resolution downwards.
    dilation, norm, pass_input
        As in `ModifiedInception`.
    """

    def __init__(
        self, features: Sequence[int], widths: Sequence[int], dilation: int, norm: bool, pass_input: bool
    ) -> None:
        super().__init__()
        below = [features[-1], *reversed(widths[1:])]
        self.levels = nn.ModuleList(
            pair(deep + skip, width, 3, 1, norm)
            for deep, skip, width in zip(below, reversed(features[:-1]), reversed(widths), strict=True)
        )
        self.inception = ModifiedInception(widths[0], widths[0], dilation, norm, pass_input)
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute logits (N, 1, H, W) from the maps of all levels of the encoder."""
        x = maps[-1]
        for level, skip in zip(self.levels, reversed(maps[:-1]), strict=True):
            x = level(torch.cat([F.interpolate(x, skip.shape[-2:], mode="nearest"), skip], 1))
        logits: Tensor = self.head(self.inception(x))
        return logits


class BifurcatedAutoencoder(nn.Module):
    """Bifurcated autoencoder, 2.578 M parameters (the paper reports no count).

    P. Yazdekhasty, A. Zindari, Z. Nabizadeh-ShahrBabak, R. Roshandel, P. Khadivi, N. Karimi, S. Samavi:
    Bifurcated Autoencoder for Segmentation of COVID-19 Infected Regions in CT Images (2020), section 2.1.

    A shared encoder serves a lung decoder and an infection decoder. The slice and the
    *probability* of infection are multiplied by the lung mask and pass a small fully
    convolutional network, which gives the final lesion logits (section 2.1.3).

    The paper leaves open, and here is: three poolings; 32, 64, 128 and 256 channels in the
    encoder; the infection decoder as wide as the encoder and the lung decoder half as wide;
    ``d_rate`` 3 in the encoder and 1 in the decoders ("smaller ... toward each decoder's
    end"); nearest-neighbour up-sampling; batch normalisation (``norm=False``: none, and
    biases instead); 32, 32 and 16 channels in the merging network. The paper multiplies by
    a *binary* lung mask, through which no gradient flows: training always takes the lung
    probability, inference what `gate` says.

    Parameters
    ----------
    outputs : sequence of str
        ``("lesion",)`` or lungs and lesion in any order; both have the same parameters.
    features : sequence of int
        Channels of the encoder's levels, from full resolution downwards.
    infection_features : sequence of int, optional
        Channels of the infection decoder's levels, one fewer, from full resolution downwards;
        as in the encoder by default. The lung decoder has half of them.
    merge_features : sequence of int
        Channels of the 3x3 convolutions of the merging network.
    dilation, decoder_dilation : int
        ``d_rate`` of the inception block of the encoder and of those of the decoders.
    norm : bool
        Batch normalisation after each convolution.
    pass_input : bool
        Inception blocks concatenate their input as a fifth branch.
    gate : {"soft", "hard"}
        At inference multiply by the lung probability, or by the mask where it is above 0.5.
    """

    def __init__(
        self,
        outputs: Sequence[str] = ("lesion",),
        features: Sequence[int] = (32, 64, 128, 256),
        infection_features: Sequence[int] | None = None,
        merge_features: Sequence[int] = (32, 32, 16),
        dilation: int = 3,
        decoder_dilation: int = 1,
        norm: bool = True,
        pass_input: bool = False,
        gate: str = "soft",
    ) -> None:
        super().__init__()
        self.outputs = check_outputs(outputs)
        self.gate = LungGate(gate)
        infection_widths = features[:-1] if infection_features is None else infection_features
        lung_widths = [width // 2 for width in infection_widths]
        self.encoder = Encoder(features, dilation, norm, pass_input)
        self.lungs = Decoder(features, lung_widths, decoder_dilation, norm, pass_input)
        self.infection = Decoder(features, infection_widths, decoder_dilation, norm, pass_input)
        widths = [2, *merge_features]
        self.merge = nn.Sequential(
            *(convolution(a, b, 3, 1, norm) for a, b in pairwise(widths)),
            nn.Conv2d(widths[-1], 1, 1),
        )
        he_normal(self)

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        """Compute logits.

        Parameters
        ----------
        slices : Tensor, shape (N, 1, H, W)
            Prepared slices in [0, 1]; any H and W of at least 8.

        Returns
        -------
        dict of str to Tensor
            One tensor of shape (N, 1, H, W) per name in `outputs`. In training mode also
            ``"lesion@aux"``, the infection decoder's own logits, for the paper's deep
            supervision, and ``"lungs@aux"`` if the lungs are no output.
        """
        maps = self.encoder(slices)
        lungs = self.lungs(maps)
        infection = self.infection(maps)
        lesion = self.merge(torch.cat([slices, infection.sigmoid()], 1) * self.gate(lungs))
        logits = name_logits(self.outputs, lungs, lesion, self.training)
        if self.training:
            logits["lesion@aux"] = infection
        return logits
