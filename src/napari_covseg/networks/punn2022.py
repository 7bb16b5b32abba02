"""RAIU-Net and CHS-Net of Punn 2022: inception, spectral pooling, attention, two networks in a row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.networks.blocks import by_name, conv_bn, conv_bn_relu, double_conv, he_normal, resize_to
from napari_covseg.networks.lung_gate import LungGate, check_outputs, name_logits
from napari_covseg.networks.spectral import spectral_pool, spectral_smooth


def separable(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
    """Depthwise separable convolution (equation 5) and batch normalisation, for a `Sequential`."""
    depthwise = nn.Conv2d(
        in_channels, in_channels, kernel, padding=kernel // 2, groups=in_channels, bias=False
    )
    return [depthwise, *conv_bn(in_channels, out_channels, 1)]


class MaxHalf(nn.Module):
    """Maximum over 2x2 pixels at stride 2, rounding the size up."""

    def forward(self, x: Tensor) -> Tensor:
        """Halve `x`, shape (N, C, H, W)."""
        if torch.compiler.is_compiling():
            # rounding up in the pooling itself ties a graph to its example's size
            return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2)
        return F.max_pool2d(x, 2, ceil_mode=True)


class HybridPool(nn.Module):
    """Maximum and spectral pooling side by side, joined by a 1x1 convolution (section 3.1.1).

    Valid pooling halves the map, rounding up. Same pooling keeps its size: a 3x3 maximum beside
    the lower half of the frequencies; the paper does not say what is truncated there.

    Parameters
    ----------
    channels : int
        Channels of the map, which it keeps.
    halve : bool
        Valid or same pooling.
    spectral : bool
        False: the maximum alone, as in the comparison "BU+RIB" (tables 4 and 5).
    """

    def __init__(self, channels: int, halve: bool, spectral: bool) -> None:
        super().__init__()
        self.halve = halve
        self.spectral = spectral
        self.maximum = MaxHalf() if halve else nn.MaxPool2d(3, 1, 1)
        self.join = nn.Conv2d((2 if spectral else 1) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool `x`, shape (N, channels, H, W)."""
        pooled = self.maximum(x)
        if self.spectral:
            smooth = spectral_pool(x) if self.halve else spectral_smooth(x)
            pooled = torch.cat([pooled, smooth], 1)
        out: Tensor = self.join(pooled)
        return out


class Inception(nn.Module):
    """Separable 1x1, 3x3 and 5x5 convolutions and hybrid pooling, joined by 1x1 (section 3.1.2, equation 3).

    Section 1.4 speaks of 2x2, 3x3 and 5x5 instead.
    """

    def __init__(self, in_channels: int, channels: int, spectral: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*separable(in_channels, channels, kernel), nn.ReLU(inplace=True))
            for kernel in (1, 3, 5)
        )
        self.pool = nn.Sequential(
            HybridPool(in_channels, False, spectral), nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)
        )
        self.join = nn.Sequential(*conv_bn_relu(3 * channels + in_channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Compute `channels` channels of the size of `x`, shape (N, in_channels, H, W)."""
        parts = [branch(x) for branch in self.branches]
        out: Tensor = self.join(torch.cat([*parts, self.pool(x)], 1))
        return out


class ResidualInception(nn.Module):
    """Two inception convolutions and a separable 3x3 shortcut (section 3.1); ReLU after their sum."""

    def __init__(self, in_channels: int, channels: int, spectral: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Inception(in_channels, channels, spectral), Inception(channels, channels, spectral)
        )
        self.shortcut = nn.Sequential(*separable(in_channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Compute `channels` channels of the size of `x`, shape (N, in_channels, H, W)."""
        return F.relu(self.body(x) + self.shortcut(x))


class SpectralAttention(nn.Module):
    """Spectral spatial and depth attention on a skip (section 3.2).

    Depth: what a global spectral pooling leaves, the channels' means, passes two 1x1
    convolutions and scales the channels (equations 8 and 9). Both convolutions end in ReLU, so
    that the scale has no upper bound, as printed. Space: the result at half size and the
    encoder's next deeper map are added (equation 10; the prose takes the skip itself, the
    equation what depth attention made of it), normalised, and become one map that scales the
    pixels (equations 11 and 12). Equation 11 writes as many filters as the deeper map has
    channels and a result of one: here is one convolution after the other. Its activation is
    ReLU in the prose and sigma in the equation: sigmoid here.

    Parameters
    ----------
    channels, below : int
        Channels of the skip and of the deeper map.
    """

    def __init__(self, channels: int, below: int) -> None:
        super().__init__()
        half = max(channels // 2, 1)
        self.depth = nn.Sequential(
            nn.Conv2d(channels, half, 1), nn.ReLU(), nn.Conv2d(half, channels, 1), nn.ReLU()
        )
        self.mix_depth = nn.Sequential(*conv_bn_relu(channels, channels, 1))
        self.halve = nn.Conv2d(channels, below, 2, stride=2)
        self.deepen = nn.Conv2d(below, below, 1)
        self.space = nn.Sequential(
            nn.BatchNorm2d(below),
            nn.ReLU(inplace=True),
            nn.Conv2d(below, below, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(below, 1, 1),
            nn.Sigmoid(),
        )
        self.mix_space = nn.Sequential(*conv_bn_relu(channels, channels, 1))

    def forward(self, skip: Tensor, deeper: Tensor) -> Tensor:
        """Refine `skip` (N, channels, H, W) by `deeper` (N, below, ceil(H / 2), ceil(W / 2))."""
        scaled = self.mix_depth(self.depth(skip.mean((2, 3), keepdim=True)) * skip)
        padded = F.pad(scaled, (0, 1, 0, 1))  # for the last row of odd sizes; even ones never see it
        space = self.space(self.halve(padded) + self.deepen(deeper))
        out: Tensor = self.mix_space(resize_to(space, skip) * scaled)
        return out


class RAIUNet(nn.Module):
    """Residual attention inception U-Net, 4.151 M parameters for one output (the paper: 4.2 M).

    N. S. Punn, S. Agarwal: CHS-Net: A Deep Learning Approach for Hierarchical Segmentation of COVID-19
    via CT Images, Neural Processing Letters 54 (2022), section 3.

    The paper leaves the widths open: doubling from 20 at four poolings is what meets its 4.2 M.
    (Its "increase depth by 50 %" contradicts the shapes of section 3.2.2.) Global spectral
    pooling keeps a single frequency, and that is the mean. Convolutions of the pooling and the
    attention have biases, without which the parameters would round to 4.1 M.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit channel.
    features : sequence of int
        Channels of the levels, from full resolution downwards.
    rib, hp, ssd : bool
        Residual inception blocks, hybrid pooling, attention on the skips: the rows of tables 4
        and 5. Without the first a level has two 3x3 convolutions; without the second, pooling
        takes the maximum; without all three it is the paper's baseline U-Net (BU).
    """

    def __init__(
        self,
        outputs: Sequence[str] = ("lesion",),
        features: Sequence[int] = (20, 40, 80, 160, 320),
        rib: bool = True,
        hp: bool = True,
        ssd: bool = True,
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)

        def block(in_channels: int, channels: int) -> nn.Module:
            """Make a level's block."""
            return ResidualInception(in_channels, channels, hp) if rib else double_conv(in_channels, channels)

        skips = features[:-1]
        self.encoders = nn.ModuleList(block(a, b) for a, b in pairwise([1, *features]))
        self.pools = nn.ModuleList(HybridPool(width, True, True) if hp else MaxHalf() for width in skips)
        self.attention = nn.ModuleList(SpectralAttention(a, b) for a, b in pairwise(features) if ssd)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(features))
        self.decoders = nn.ModuleList(block(2 * width, width) for width in skips)
        self.head = nn.Conv2d(features[0], len(self.outputs), 1)
        he_normal(self, "linear")

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        """Compute logits.

        Parameters
        ----------
        slices : Tensor, shape (N, 1, H, W)
            Prepared slices in [0, 1]; any H and W. To train on a single slice, the deepest map
            must have more than one pixel: more than 16 with four poolings.

        Returns
        -------
        dict of str to Tensor
            One tensor of shape (N, 1, H, W) per name in `outputs`.
        """
        maps = [self.encoders[0](slices)]
        for pool, encoder in zip(self.pools, list(self.encoders)[1:], strict=True):
            maps.append(encoder(pool(maps[-1])))
        x = maps[-1]
        for i in reversed(range(len(self.decoders))):
            skip = self.attention[i](maps[i], maps[i + 1]) if self.attention else maps[i]
            x = self.decoders[i](torch.cat([skip, resize_to(self.ups[i](x), skip)], 1))
        return by_name(self.head(x), self.outputs)


class CHSNet(nn.Module):
    """Two RAIU-Nets in a row, 8.301 M parameters: lungs, then lesions in what the lungs leave of the slice.

    Punn 2022, section 3 and figure 5: "lungs contour maps ... serve as the input to another RAIU-Net".
    What of them is the input is open: here the slice times the lung probability while training,
    and times the lung mask at inference.

    Parameters
    ----------
    outputs : sequence of str
        ``("lesion",)`` or lungs and lesion in any order; both have the same parameters.
    gate : {"hard", "soft"}
        At inference multiply by the mask where the lung probability is above 0.5, or by the probability.
    gate_dilation : int
        Pixels by which the hard mask is grown on each side.
    joint : bool
        The lesion's loss trains the lung network, too. Otherwise each learns from its own loss
        alone, as in training one stage after the other.
    **settings
        Those of `RAIUNet`, for both networks.
    """

    def __init__(
        self,
        outputs: Sequence[str] = ("lesion",),
        gate: str = "hard",
        gate_dilation: int = 0,
        joint: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.outputs = check_outputs(outputs)
        self.gate = LungGate(gate, gate_dilation)
        self.joint = joint
        self.lungs = RAIUNet(("lungs",), **settings)
        self.lesion = RAIUNet(("lesion",), **settings)
        self._learned = ""

    def learn_only(self, part: str) -> None:
        """Train one of the two networks alone, as the paper's figure 5 has them one after the other.

        The other stands still, the running statistics of its normalisation included, and only the
        logits of the one that learns come out while training.

        Parameters
        ----------
        part : {"lungs", "lesion", ""}
            Empty: both at once again.
        """
        self._learned = part
        for name in ("lungs", "lesion"):
            getattr(self, name).requires_grad_(part in ("", name))
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation; what stands still always evaluates."""
        super().train(mode)
        if self._learned == "lesion":
            self.lungs.eval()
        return self

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        """Compute logits, as `RAIUNet`; while training also ``"lungs@aux"`` if the lungs are no output."""
        if self.training and self._learned:
            return self._part(slices)
        lungs = self.lungs(slices)["lungs"]
        gate = self.gate(lungs if self.joint else lungs.detach())
        lesion = self.lesion(slices * gate)["lesion"]
        return name_logits(self.outputs, lungs, lesion, self.training)

    def _part(self, slices: Tensor) -> dict[str, Tensor]:
        """Compute the logits of the network that learns alone."""
        lungs: dict[str, Tensor] = self.lungs(slices)
        if self._learned == "lungs":
            return lungs
        lesion: dict[str, Tensor] = self.lesion(slices * self.gate(lungs["lungs"]))
        return lesion
