"""From a card's words to a network: the only place where a network is looked up by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from napari_covseg.errors import ModelError
from napari_covseg.networks.amer2021 import RDUNet, ResDUNet
from napari_covseg.networks.classifier import Classifier
from napari_covseg.networks.efficientnet import EfficientNetLite0, EfficientUNet, EfficientUNetFindings
from napari_covseg.networks.elbana2020 import DeepLabV3Plus, ManifestationNetwork
from napari_covseg.networks.inception import InceptionV3
from napari_covseg.networks.punn2022 import CHSNet, RAIUNet
from napari_covseg.networks.salehi2022 import ResUNet, UNetPlusPlus
from napari_covseg.networks.unet import UNet
from napari_covseg.networks.yazdekhasty2020 import BifurcatedAutoencoder

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "resdunet": ResDUNet,
    "rdunet": RDUNet,
    "raiunet": RAIUNet,
    "chsnet": CHSNet,
    "unetpp": UNetPlusPlus,
    "resunet": ResUNet,
    "bifurcated": BifurcatedAutoencoder,
    "deeplabv3plus": DeepLabV3Plus,
    "efficientunet": EfficientUNet,
}
"""Those that label pixels."""
CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    "inceptionv3": InceptionV3,
    "manifestations": ManifestationNetwork,
    "efficientnetlite0": EfficientNetLite0,
    "efficientunetfindings": EfficientUNetFindings,
}
"""Those that name what a whole slice shows."""
_ALL: dict[str, Callable[..., nn.Module]] = {**NETWORKS, **CLASSIFIERS}


def build_network(name: str, outputs: Sequence[str], settings: dict[str, Any]) -> nn.Module:
    """Build the network called `name` with freshly initialised weights.

    Raises
    ------
    ModelError
        If no network has that name, or it does not take these settings.
    """
    if name not in _ALL:
        raise ModelError(
            f"The network {name!r} is not known here; known are {', '.join(_ALL)}. Update napari-covseg."
        )
    try:
        return _ALL[name](outputs=tuple(outputs), **settings)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:  # what layers raise
        raise ModelError(f"The network {name!r} does not take the settings {settings}: {error}.") from error
