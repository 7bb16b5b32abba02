"""Aligned Xception-65 (Chen 2018), the feature extractor of DeepLab-v3+."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-3
"""What batch normalisation adds to the variance in the original."""


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> list[nn.Module]:
    """Convolution that keeps the size at stride 1, and batch normalisation, for a `Sequential`."""
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=EPSILON),
    ]


def separable(
    in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, relu_first: bool = False
) -> nn.Sequential:
    """Depthwise 3x3, then 1x1 convolution, each with batch normalisation.

    ReLU comes before the two, or after each of them.
    """
    depthwise = conv_norm(in_channels, in_channels, 3, stride=stride, dilation=dilation, groups=in_channels)
    pointwise = conv_norm(in_channels, out_channels)
    if relu_first:
        return nn.Sequential(nn.ReLU(), *depthwise, *pointwise)
    return nn.Sequential(*depthwise, nn.ReLU(inplace=True), *pointwise, nn.ReLU(inplace=True))


class Block(nn.Module):
    """Three separable convolutions, the last with the stride, and what is added to them.

    Parameters
    ----------
    in_channels : int
    widths : sequence of int
        Channels of the three.
    stride, dilation : int
    shortcut : {"conv", "identity", "none"}
        A 1x1 convolution with the stride, the input itself, or nothing. Only without one does
        ReLU follow each convolution instead of coming before each pair.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        stride: int,
        dilation: int,
        shortcut: Literal["conv", "identity", "none"],
    ) -> None:
        super().__init__()
        first, second, third = widths
        steps = [(in_channels, first, 1), (first, second, 1), (second, third, stride)]
        self.layers = nn.ModuleList(
            separable(a, b, stride=step, dilation=dilation, relu_first=shortcut != "none")
            for a, b, step in steps
        )
        self.identity = shortcut == "identity"
        self.shortcut = (
            nn.Sequential(*conv_norm(in_channels, third, stride=stride)) if shortcut == "conv" else None
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the block's map, and that of its second convolution, which no stride has shrunk yet."""
        middle = self.layers[1](self.layers[0](x))
        out = self.layers[2](middle)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        elif self.identity:
            out = out + x
        return out, middle


class Xception65(nn.Module):
    """Aligned Xception-65 for slices of one channel.

    L.-C. Chen et al., Encoder-Decoder with Atrous Separable Convolution (2018), section 3.2, with
    ReLU where the original program has it: before the separable convolutions of blocks that
    have a shortcut. (The paper's text has one after each depthwise convolution everywhere.)

    Parameters
    ----------
    output_stride : {8, 16, 32}
        How many times smaller than the slice the deepest map is; what is not shrunk is dilated.
    middle_blocks : int
        Blocks of the middle flow: 16 in Xception-65, 8 in Xception-41.
    width : float
        Factor of the channels of every layer.

    Attributes
    ----------
    low_channels, channels : int
        Of the two maps that come out; 256 and 2048 at full width.

    Raises
    ------
    ValueError
        If `output_stride` is none of these, or nothing is left of a layer.
    """

    def __init__(self, output_stride: int = 16, middle_blocks: int = 16, width: float = 1.0) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"the output stride is 8, 16 or 32, not {output_stride}")
        if int(32 * width) < 1:
            raise ValueError(f"a width of {width} leaves nothing of the first layer's 32 channels")

        def wide(*channels: int) -> tuple[int, ...]:
            return tuple(int(each * width) for each in channels)

        (self.low_channels, self.channels), (first, second) = wide(256, 2048), wide(32, 64)
        (early, low, middle_wide, late) = wide(128, 256, 728, 1024)
        third = 2 if output_stride > 8 else 1
        fourth = 2 if output_stride > 16 else 1
        middle = 2 // third  # dilation once a stride has been left out
        last = middle * 2 // fourth
        self.stem = nn.Sequential(
            *conv_norm(1, first, 3, stride=2),
            nn.ReLU(inplace=True),
            *conv_norm(first, second, 3),
            nn.ReLU(inplace=True),
        )
        self.entry = nn.ModuleList(
            [
                Block(second, (early,) * 3, 2, 1, "conv"),
                Block(early, (low,) * 3, 2, 1, "conv"),
                Block(low, (middle_wide,) * 3, third, 1, "conv"),
            ]
        )
        self.middle = nn.ModuleList(
            Block(middle_wide, (middle_wide,) * 3, 1, middle, "identity") for _ in range(middle_blocks)
        )
        self.exit = nn.ModuleList(
            [
                Block(middle_wide, (middle_wide, late, late), fourth, middle, "conv"),
                Block(late, wide(1536, 1536, 2048), 1, last, "none"),
            ]
        )

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features.

        Parameters
        ----------
        slices : Tensor, shape (N, 1, H, W)

        Returns
        -------
        low : Tensor, shape (N, low_channels, H / 4, W / 4), rounded up
            After the second separable convolution of the second entry block.
        deep : Tensor, shape (N, channels, H / output_stride, W / output_stride), rounded up
        """
        x, _ = self.entry[0](self.stem(slices))
        x, low = self.entry[1](x)
        for block in [self.entry[2], *self.middle, *self.exit]:
            x, _ = block(x)
        return low, F.relu(x)
