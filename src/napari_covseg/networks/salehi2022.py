"""Two of the three networks that Salehi 2022 compares: U-Net++ and Res-UNet (the third is `unet.UNet`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.networks.blocks import by_name, double_conv, he_normal, mean_logits, resize_to


class UNetPlusPlus(nn.Module):
    """U-Net++ (Zhou 2018), which Salehi 2022 takes "without any custom modification".

    Nodes X(i, j) with i + j <= depth: X(i, 0) is a double convolution of the pooled X(i-1, 0);
    X(i, j) is one of X(i, 0..j-1) and the 2x2 transposed convolution of X(i+1, j-1) to level
    i's width, concatenated. Heads on X(0, 1..depth) share the supervision: while training, the
    shallower ones are ``"<output>@1"``, ... and the deepest ``"<output>"``; otherwise the answer
    is the mean of their probabilities, as logits, or one head's. 9.045 M parameters for one
    output; the original has 9.04 M.

    Where the papers are open: batch normalisation (the original has none); whether Salehi 2022
    used supervision and averaging, which it names as the network's traits.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit channel of each head.
    features : sequence of int
        Channels of the levels, from full resolution downwards.
    supervision : bool
        A head on every X(0, j), or only on the deepest.
    head : int
        The head that answers when not training: 0 is the mean of all; k is X(0, k), and
        nodes that it does not need are not computed (the original's pruning, faster).

    Raises
    ------
    ValueError
        If there is no such head.
    """

    def __init__(
        self,
        outputs: Sequence[str] = ("lesion",),
        features: Sequence[int] = (32, 64, 128, 256, 512),
        supervision: bool = True,
        head: int = 0,
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.depth = len(features) - 1
        self.head = head
        first = 1 if supervision else self.depth
        if self.depth < 1 or (head and not first <= head <= self.depth):
            raise ValueError(f"no head {head} over {len(features)} levels, supervision {supervision}")
        self.encoders = nn.ModuleList(double_conv(a, b) for a, b in pairwise([1, *features]))
        self.ups, self.nodes = nn.ModuleDict(), nn.ModuleDict()
        for j in range(1, self.depth + 1):
            for i in range(self.depth - j + 1):
                width = features[i]
                self.ups[f"{i}_{j}"] = nn.ConvTranspose2d(features[i + 1], width, 2, stride=2)
                self.nodes[f"{i}_{j}"] = double_conv((j + 1) * width, width)
        self.heads = nn.ModuleDict(
            {str(j): nn.Conv2d(features[0], len(self.outputs), 1) for j in range(first, self.depth + 1)}
        )
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
            One tensor of shape (N, 1, H, W) per name in `outputs`; while training, also those
            of the shallower heads.
        """
        one_head = self.head if not self.training else 0
        top = self._top(slices, one_head or self.depth)
        logits = {j: self.heads[j](top[int(j)]) for j in self.heads if one_head in (0, int(j))}
        if not self.training:
            heads = list(logits.values())
            return by_name(mean_logits(heads) if len(heads) > 1 else heads[0], self.outputs)
        named = by_name(logits.pop(str(self.depth)), self.outputs)
        for j, shallower in logits.items():
            named |= by_name(shallower, self.outputs, f"@{j}")
        return named

    def _top(self, slices: Tensor, depth: int) -> list[Tensor]:
        """Return X(0, 0..depth), computing X(i, j) with i + j <= depth only."""
        rows: list[list[Tensor]] = []
        x = slices
        for i in range(depth + 1):
            x = self.encoders[i](F.max_pool2d(x, 2) if i else x)
            rows.append([x])
            for j in range(1, i + 1):  # along the diagonal, up to the full resolution
                row, below = rows[i - j], rows[i - j + 1][j - 1]
                up = resize_to(self.ups[f"{i - j}_{j}"](below), row[0])
                row.append(self.nodes[f"{i - j}_{j}"](torch.cat([*row, up], 1)))
        return rows[0]


class PreActivationUnit(nn.Module):
    """Residual unit of Zhang 2018: (BN, ReLU, 3x3 convolution) twice, plus a 1x1 shortcut with BN.

    Convolutions carry biases, as in the original.

    Parameters
    ----------
    in_channels, out_channels : int
    stride : int
        Of the first convolution and of the shortcut.
    first : bool
        The network's first unit begins with a convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, first: bool = False) -> None:
        super().__init__()
        activate = [] if first else [nn.BatchNorm2d(in_channels), nn.ReLU()]
        self.body = nn.Sequential(
            *activate,
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride=stride), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H / stride, W / stride), rounded up."""
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


class ResUNet(nn.Module):
    """Res-UNet: the deep residual U-Net of Zhang 2018, which Salehi 2022 takes as it is.

    Pre-activation units; the encoder shrinks with stride 2 instead of pooling; the decoder
    resizes to the skip (bilinear), concatenates, and passes a unit. 8.223 M parameters for
    one output; Zhang's has 7.8 M, with fewer 1x1 shortcuts, which the text leaves open.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit channel.
    features : sequence of int
        Channels of the levels that have a skip, from full resolution downwards.
    bottleneck : int
        Channels of the bridge.
    """

    def __init__(
        self,
        outputs: Sequence[str] = ("lesion",),
        features: Sequence[int] = (64, 128, 256),
        bottleneck: int = 512,
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.stem = PreActivationUnit(1, features[0], first=True)
        self.encoders = nn.ModuleList(
            PreActivationUnit(a, b, 2) for a, b in pairwise([*features, bottleneck])
        )
        below = [bottleneck, *reversed(features)]
        self.decoders = nn.ModuleList(PreActivationUnit(a + b, b) for a, b in pairwise(below))
        self.head = nn.Conv2d(features[0], len(self.outputs), 1)
        he_normal(self)

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        """Compute logits.

        Parameters
        ----------
        slices : Tensor, shape (N, 1, H, W)
            Prepared slices in [0, 1]; any H and W of at least 2, 16 to be worth it.

        Returns
        -------
        dict of str to Tensor
            One tensor of shape (N, 1, H, W) per name in `outputs`.
        """
        skips = [self.stem(slices)]
        for encoder in self.encoders:
            skips.append(encoder(skips[-1]))
        x = skips.pop()
        for decoder in self.decoders:
            skip = skips.pop()
            x = decoder(torch.cat([skip, resize_to(x, skip)], 1))
        return by_name(self.head(x), self.outputs)
