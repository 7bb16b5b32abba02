"""The networks of El-bana 2020: one that names manifestations (second stage), DeepLab-v3+ (third).

The first stage recognises with Inception-v3, see `inception`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from napari_covseg.labels import MANIFESTATIONS
from napari_covseg.networks.blocks import by_name, he_normal, resize_to
from napari_covseg.networks.classifier import Classifier
from napari_covseg.networks.xception import Xception65, conv_norm, separable


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: what surrounds a pixel, at several distances, and the whole map.

    Branches of 256 channels each, or as told: 1x1, one separable 3x3 per rate, and the map's mean. They are
    joined by a 1x1 convolution and dropout of 0.1. The branch of the mean has a bias instead of
    batch normalisation, whose statistics would be those of one value per slice: they are
    undefined for a batch of one.
    """

    def __init__(self, in_channels: int, rates: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.centre = nn.Sequential(*conv_norm(in_channels, channels), nn.ReLU(inplace=True))
        self.around = nn.ModuleList(separable(in_channels, channels, dilation=rate) for rate in rates)
        self.whole = nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.ReLU(inplace=True))
        self.join = nn.Sequential(
            *conv_norm((2 + len(rates)) * channels, channels), nn.ReLU(inplace=True), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute `channels` channels of the size of `x`, shape (N, in_channels, H, W)."""
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand(-1, -1, x.shape[-2], x.shape[-1])
        out: Tensor = self.join(torch.cat([self.centre(x), *(branch(x) for branch in self.around), whole], 1))
        return out


class DeepLabV3Plus(nn.Module):
    """DeepLab-v3+ on aligned Xception-65, 41.05 M parameters for one output.

    S. El-bana, A. Al-Kabbany, M. Sharkas: A multi-task pipeline with specialized streams for
    classification and segmentation of infection manifestations in COVID-19 scans, PeerJ Computer
    Science 6:e303 (2020), section "Segmenting Infection Manifestations"; network by Chen et al. 2018.
    A specialised stream of the paper is this network with one output.

    The weights that the paper starts from were never published: random ones here. Grey slices
    of one channel, where the paper repeats them in three.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit channel.
    rates : sequence of int
        Dilations of the pyramid's 3x3 convolutions. The paper has 6, 12 and 18 for slices of 512
        pixels. At 256 and below the deepest map has at most 16 pixels, and 18 would leave of a
        3x3 convolution its centre alone: 2, 4 and 6 by default.
    output_stride : {8, 16, 32}
        How many times smaller than the slice the deepest map is; 16 in the paper.
    middle_blocks : int
        Blocks of Xception's middle flow.
    width : float
        Factor of the channels of every layer; 1 in the paper.
    """

    def __init__(
        self,
        outputs: Sequence[str] = ("lesion",),
        rates: Sequence[int] = (2, 4, 6),
        output_stride: int = 16,
        middle_blocks: int = 16,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.backbone = Xception65(output_stride, middle_blocks, width)
        wide, thin = int(256 * width), int(48 * width)
        self.pyramid = AtrousPyramid(self.backbone.channels, rates, wide)
        self.low = nn.Sequential(*conv_norm(self.backbone.low_channels, thin), nn.ReLU(inplace=True))
        self.refine = nn.Sequential(separable(wide + thin, wide), separable(wide, wide))
        self.head = nn.Conv2d(wide, len(self.outputs), 1)
        he_normal(self, "linear")

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        """Compute logits.

        Parameters
        ----------
        slices : Tensor, shape (N, 1, H, W)
            Prepared slices in [0, 1]; any H and W. To train on a single slice, the deepest map
            must have more than one pixel: more than 16 at output stride 16.

        Returns
        -------
        dict of str to Tensor
            One tensor of shape (N, 1, H, W) per name in `outputs`.
        """
        low, deep = self.backbone(slices)
        low = self.low(low)
        x = self.refine(torch.cat([resize_to(self.pyramid(deep), low), low], 1))
        return by_name(resize_to(self.head(x), slices), self.outputs)


class ManifestationNetwork(Classifier):
    """The multi-label network of El-bana 2020, section "Multi-label classification", 4.576 M parameters.

    Blocks of 5x5 convolution, ELU, maximum and dropout, then three dense layers. Each output is answered by
    itself: a slice may have none of the manifestations, or all. Grey slices are repeated in three channels,
    as the paper has them.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit.
    features : sequence of int
        Channels of the blocks, each of which halves the size. The paper gives neither their number nor
        their widths.
    dense : sequence of int
        Widths of the hidden dense layers.
    size : int
        Height and width of the slices, on which the dense layers depend: it takes no others.
    block_dropout, dense_dropout : float
        After each block, and after each hidden dense layer.
    """

    last_layer = "head"

    def __init__(
        self,
        outputs: Sequence[str] = MANIFESTATIONS,
        features: Sequence[int] = (16, 32, 64, 64, 128),
        dense: Sequence[int] = (128, 64),
        size: int = 512,
        block_dropout: float = 0.25,
        dense_dropout: float = 0.5,
    ) -> None:
        super().__init__(outputs)
        self.size = self.smallest = size
        self.heat_map_layer = f"blocks.{len(features) - 1}.1"  # at the size before the last pooling
        self.blocks = nn.Sequential()
        for before, after in pairwise((3, *features)):
            layers = [nn.Conv2d(before, after, 5, padding=2), nn.ELU(), nn.MaxPool2d(2)]
            self.blocks.append(nn.Sequential(*layers, nn.Dropout(block_dropout)))
        flat = features[-1] * (size >> len(features)) ** 2
        self.dense = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), nn.ELU(), nn.Dropout(dense_dropout))
                for before, after in pairwise((flat, *dense))
            )
        )
        self.head = nn.Linear(dense[-1], len(self.outputs))
        he_normal(self)

    def features(self, slices: Tensor) -> Tensor:
        """Return the last block's map, flat; slices of `size` only."""
        maps: Tensor = self.blocks(slices.expand(-1, 3, -1, -1))
        return maps.flatten(1)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits, shape (N, len(outputs))."""
        logits: Tensor = self.head(self.dense(features))
        return logits
