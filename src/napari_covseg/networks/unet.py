"""U-Net as in sheet 001-a: double 3x3 convolutions, transposed up-convolutions, concatenated skips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.networks.blocks import by_name, double_conv, he_normal, resize_to


class UNet(nn.Module):
    """U-Net (Ronneberger 2015) with the widths of Amer 2021 as the default setting.

    ``features=(16, 32, 64, 128), bottleneck=512`` has 4.139 M parameters for one output:
    of all plain lists with four skips, 16 first and 512 at the bottom, the only one that
    meets the paper's 4.1 M. The prose ("factor of 2") would give
    ``(16, 32, 64, 128, 256), 512`` or ``(16, 32, 64, 128), 256``; both are valid settings.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit channel, for example ``("lungs", "lesion")``.
    features : sequence of int
        Channels of the levels that have a skip, from full resolution downwards.
    bottleneck : int
        Channels at the bottom.
    """

    def __init__(
        self,
        outputs: Sequence[str] = ("lesion",),
        features: Sequence[int] = (16, 32, 64, 128),
        bottleneck: int = 512,
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        widths = [1, *features]
        self.encoders = nn.ModuleList(double_conv(a, b) for a, b in pairwise(widths))
        self.bottom = double_conv(features[-1], bottleneck)
        below = [bottleneck, *reversed(features)]
        self.ups = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(below))
        self.decoders = nn.ModuleList(double_conv(2 * width, width) for width in reversed(features))
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
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            skip = skips.pop()
            x = decoder(torch.cat([skip, resize_to(up(x), skip)], 1))
        return by_name(self.head(x), self.outputs)
