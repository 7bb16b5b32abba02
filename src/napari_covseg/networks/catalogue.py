"""Every network of the papers with the settings that its paper names, and the presets beside it.

Plain data, so that a window can list it without loading the networks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from napari_covseg.labels import CLASSES, MANIFESTATIONS, Task

AMER, PUNN, SALEHI = "Amer 2021", "Punn 2022", "Salehi 2022"
YAZDEKHASTY, ELBANA = "Yazdekhasty 2020", "Elbana 2020"


@dataclass(frozen=True)
class NetworkEntry:
    """One network with its settings.

    Attributes
    ----------
    name : str
        ``<paper>-<network>``, and that of its recipe.
    title : str
        For a person: one line.
    paper : str
        Author and year.
    network : str
        Its name in `networks.build.NETWORKS`.
    parameters : int
        Trainable values: of a network that labels pixels with one output, of others with `classes`.
    gmac : float
        Billions of multiply-adds of its convolutions, transposed convolutions and linear
        layers for one slice of `size`, in evaluation mode.
    settings : dict
        JSON-ready keywords of the network; what it leaves out is the network's default.
    preset_of : str
        Name of the paper's network that this one is a variant of (other widths, or a part left
        out for comparison); empty for the paper's network itself.
    task : {"segmentation", "recognition", "manifestations"}
    classes : tuple of str
        What a network for another task than segmentation has outputs for; empty for one that labels pixels,
        whose outputs are chosen when it is built.
    size : int
        Height and width in pixels of a slice for `gmac`: for another task than segmentation those that the
        network was published for.
    """

    name: str
    title: str
    paper: str
    network: str
    parameters: int
    gmac: float
    settings: dict[str, Any] = field(default_factory=dict)
    preset_of: str = ""
    task: Task = "segmentation"
    classes: tuple[str, ...] = ()
    size: int = 256


_UNET = {"features": [16, 32, 64, 128], "bottleneck": 512}
_RDUNET = _UNET | {
    "residual": "concat",
    "se": True,
    "dc": "half",
    "dilations": [[1, 2, 3, 3, 2, 1], [1, 2, 2, 1]],
    "dropout": 0.5,
}
_RESDUNET = _RDUNET | {"residual": "add", "dilations": [[3, 3, 2, 2, 1, 1], [2, 2, 1, 1]]}

CATALOGUE: tuple[NetworkEntry, ...] = (
    NetworkEntry("amer2021-unet", "U-Net", AMER, "unet", 4_138_769, 3.576, _UNET),
    NetworkEntry(
        "amer2021-unet-256",
        "U-Net, 256 channels at the bottom",
        AMER,
        "unet",
        1_942_289,
        3.014,
        {"features": [16, 32, 64, 128], "bottleneck": 256},
        preset_of="amer2021-unet",
    ),
    NetworkEntry(
        "amer2021-unet-six",
        "U-Net of six levels",
        AMER,
        "unet",
        7_778_321,
        3.727,
        {"features": [16, 32, 64, 128, 256], "bottleneck": 512},
        preset_of="amer2021-unet",
    ),
    NetworkEntry("amer2021-resdunet", "ResDUNet", AMER, "resdunet", 4_252_301, 4.198, _RESDUNET),
    NetworkEntry("amer2021-rdunet", "RD-UNet", AMER, "rdunet", 4_557_965, 4.399, _RDUNET),
    NetworkEntry(
        "amer2021-rdunet-wide",
        "RD-UNet, dilated modules as wide as their skips",
        AMER,
        "rdunet",
        5_223_661,
        6.848,
        _RDUNET | {"dc": "full"},
        preset_of="amer2021-rdunet",
    ),
    NetworkEntry(
        "amer2021-residual",
        "U-Net with residual units (RD-UNet without SE and dilated modules)",
        AMER,
        "rdunet",
        4_337_617,
        3.828,
        _RDUNET | {"se": False, "dc": "none"},
        preset_of="amer2021-rdunet",
    ),
    NetworkEntry(
        "amer2021-residual-se",
        "U-Net with residual units and SE (RD-UNet without dilated modules)",
        AMER,
        "rdunet",
        4_415_149,
        3.828,
        _RDUNET | {"dc": "none"},
        preset_of="amer2021-rdunet",
    ),
    NetworkEntry("punn2022-raiunet", "RAIU-Net", PUNN, "raiunet", 4_150_644, 6.355),
    NetworkEntry(
        "punn2022-raiunet-16",
        "RAIU-Net of base width 16",
        PUNN,
        "raiunet",
        2_672_398,
        4.137,
        {"features": [16, 32, 64, 128, 256]},
        preset_of="punn2022-raiunet",
    ),
    NetworkEntry(
        "punn2022-raiunet-bu",
        "RAIU-Net left with its baseline U-Net (BU)",
        PUNN,
        "raiunet",
        3_033_781,
        4.705,
        {"rib": False, "hp": False, "ssd": False},
        preset_of="punn2022-raiunet",
    ),
    NetworkEntry(
        "punn2022-raiunet-bu-rib",
        "RAIU-Net of residual inception blocks alone (BU+RIB)",
        PUNN,
        "raiunet",
        3_090_689,
        4.990,
        {"hp": False, "ssd": False},
        preset_of="punn2022-raiunet",
    ),
    NetworkEntry(
        "punn2022-raiunet-bu-rib-hp",
        "RAIU-Net without attention (BU+RIB+HP)",
        PUNN,
        "raiunet",
        3_499_390,
        5.724,
        {"ssd": False},
        preset_of="punn2022-raiunet",
    ),
    NetworkEntry("punn2022-chsnet", "CHS-Net", PUNN, "chsnet", 8_301_288, 12.710),
    NetworkEntry(
        "punn2022-chsnet-bu",
        "CHS-Net left with its baseline U-Net (BU)",
        PUNN,
        "chsnet",
        6_067_562,
        9.411,
        {"rib": False, "hp": False, "ssd": False},
        preset_of="punn2022-chsnet",
    ),
    NetworkEntry(
        "punn2022-chsnet-bu-rib",
        "CHS-Net of residual inception blocks alone (BU+RIB)",
        PUNN,
        "chsnet",
        6_181_378,
        9.981,
        {"hp": False, "ssd": False},
        preset_of="punn2022-chsnet",
    ),
    NetworkEntry(
        "punn2022-chsnet-bu-rib-hp",
        "CHS-Net without attention (BU+RIB+HP)",
        PUNN,
        "chsnet",
        6_998_780,
        11.449,
        {"ssd": False},
        preset_of="punn2022-chsnet",
    ),
    NetworkEntry(
        "salehi2022-unet",
        "U-Net",
        SALEHI,
        "unet",
        7_762_465,
        12.033,
        {"features": [32, 64, 128, 256], "bottleneck": 512},
    ),
    NetworkEntry(
        "salehi2022-unet-64",
        "U-Net with the original's widths",
        SALEHI,
        "unet",
        31_036_481,
        48.092,
        {"features": [64, 128, 256, 512], "bottleneck": 1024},
        preset_of="salehi2022-unet",
    ),
    NetworkEntry(
        "salehi2022-unetpp",
        "U-Net++",
        SALEHI,
        "unetpp",
        9_045_348,
        29.756,
        {"features": [32, 64, 128, 256, 512], "supervision": True, "head": 0},
    ),
    NetworkEntry(
        "salehi2022-resunet",
        "Res-UNet",
        SALEHI,
        "resunet",
        8_222_529,
        45.143,
        {"features": [64, 128, 256], "bottleneck": 512},
    ),
    NetworkEntry(
        "yazdekhasty2020-bifurcated", "Bifurcated autoencoder", YAZDEKHASTY, "bifurcated", 2_577_587, 33.657
    ),
    NetworkEntry(
        "yazdekhasty2020-bifurcated-small",
        "Bifurcated autoencoder, half as wide",
        YAZDEKHASTY,
        "bifurcated",
        646_867,
        8.506,
        {"features": [16, 32, 64, 128], "merge_features": [16, 16, 16]},
        preset_of="yazdekhasty2020-bifurcated",
    ),
    NetworkEntry(
        "yazdekhasty2020-bifurcated-wide",
        "Bifurcated autoencoder with a wide encoder",
        YAZDEKHASTY,
        "bifurcated",
        3_986_421,
        66.285,
        {"features": [50, 90, 180, 320], "infection_features": [48, 60, 120]},
        preset_of="yazdekhasty2020-bifurcated",
    ),
    NetworkEntry(
        "elbana2020-deeplabv3plus",
        "DeepLab-v3+ on aligned Xception-65",
        ELBANA,
        "deeplabv3plus",
        41_049_441,
        12.791,
        {"rates": [6, 12, 18]},
    ),
    NetworkEntry(
        "elbana2020-deeplabv3plus-256",
        "DeepLab-v3+ with rates for slices of 256 pixels",
        ELBANA,
        "deeplabv3plus",
        41_049_441,
        12.791,
        {"rates": [2, 4, 6]},
        preset_of="elbana2020-deeplabv3plus",
    ),
    NetworkEntry(
        "elbana2020-deeplabv3plus-quarter",
        "DeepLab-v3+ of a quarter of the widths, for slices of 256 pixels",
        ELBANA,
        "deeplabv3plus",
        2_689_557,
        0.836,
        {"rates": [2, 4, 6], "width": 0.25},
        preset_of="elbana2020-deeplabv3plus",
    ),
)
"""Those that label pixels, which is all that is offered for segmentation."""

CLASSIFIERS: tuple[NetworkEntry, ...] = (
    NetworkEntry(
        "elbana2020-inception-v3",
        "Inception-v3",
        ELBANA,
        "inceptionv3",
        21_789_666,
        5.711,
        task="recognition",
        classes=CLASSES[:2],
        size=299,
    ),
    NetworkEntry(
        "elbana2020-inception-v3-4",
        "Inception-v3 of four classes",
        ELBANA,
        "inceptionv3",
        21_793_764,
        5.711,
        preset_of="elbana2020-inception-v3",
        task="recognition",
        classes=CLASSES,
        size=299,
    ),
    NetworkEntry(
        "elbana2020-efficientnet-lite0",
        "EfficientNet-Lite0 in its place, whose ImageNet weights can be had",
        ELBANA,
        "efficientnetlite0",
        3_372_994,
        0.377,
        preset_of="elbana2020-inception-v3",
        task="recognition",
        classes=CLASSES[:2],
        size=224,
    ),
    NetworkEntry(
        "elbana2020-multilabel",
        "Multi-label network",
        ELBANA,
        "manifestations",
        4_575_587,
        2.626,
        {"size": 512},
        task="manifestations",
        classes=MANIFESTATIONS,
        size=512,
    ),
    NetworkEntry(
        "elbana2020-efficientunet-findings",
        "Instead of it the surest pixels of the default model",
        ELBANA,
        "efficientunetfindings",
        3_422_880,
        1.390,
        preset_of="elbana2020-multilabel",
        task="manifestations",
        classes=MANIFESTATIONS,
        size=256,
    ),
)
"""Those that name what a whole slice shows."""

BY_NAME = {entry.name: entry for entry in (*CATALOGUE, *CLASSIFIERS)}
