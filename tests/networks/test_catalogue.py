"""Every network of the catalogue has the size that it says, takes any slice, and can learn."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from napari_covseg.networks.build import NETWORKS, build_network
from napari_covseg.networks.catalogue import BY_NAME, CATALOGUE, NetworkEntry
from napari_covseg.networks.size import count, gmac, parameters

SHEET = {  # millions of parameters, as the papers report them or as their descriptions give
    "amer2021-unet": 4.139,
    "amer2021-resdunet": 4.252,
    "amer2021-rdunet": 4.558,
    "amer2021-rdunet-wide": 5.224,
    "punn2022-raiunet": 4.151,
    "punn2022-chsnet": 8.301,
    "yazdekhasty2020-bifurcated": 2.578,
    "salehi2022-unet": 7.762,
    "salehi2022-unet-64": 31.036,
    "salehi2022-unetpp": 9.045,
    "salehi2022-resunet": 8.223,
    "elbana2020-deeplabv3plus": 41.049,
    "elbana2020-deeplabv3plus-quarter": 2.690,
}
every_network = pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
papers_own = pytest.mark.parametrize(
    "entry", [entry for entry in CATALOGUE if not entry.preset_of], ids=lambda entry: entry.name
)


def build(entry: NetworkEntry, *outputs: str) -> nn.Module:
    """Build with random weights; the settings pass through JSON, as in a card."""
    return build_network(entry.network, outputs or ("lesion",), json.loads(json.dumps(entry.settings)))


def test_names_are_distinct_and_presets_belong_to_a_network_of_their_paper() -> None:
    names = [entry.name for entry in CATALOGUE]
    assert len(set(names)) == len(names)
    assert {entry.network for entry in CATALOGUE} == set(NETWORKS) - {"efficientunet"}  # our own
    for entry in CATALOGUE:
        assert entry.name.startswith(entry.paper.lower().replace(" ", "") + "-")
        assert BY_NAME[entry.name] is entry
        if entry.preset_of:
            own = BY_NAME[entry.preset_of]
            assert (own.paper, own.preset_of) == (entry.paper, "")
            assert own.settings != entry.settings


def test_reading_the_catalogue_loads_no_network() -> None:
    code = "import sys, napari_covseg.networks.catalogue; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_the_papers_networks_are_there_with_the_papers_sizes() -> None:
    for name, millions in SHEET.items():
        assert round(BY_NAME[name].parameters / 1e6, 3) == millions, name


@every_network
def test_parameters_are_as_pinned(entry: NetworkEntry) -> None:
    with torch.device("meta"):
        assert parameters(build(entry)) == entry.parameters


@pytest.mark.parametrize("name", [name for name in SHEET if name != "punn2022-chsnet"])
def test_multiplications_are_as_pinned(name: str) -> None:
    entry = BY_NAME[name]
    assert round(count(entry.network, entry.settings)[1], 3) == entry.gmac


@pytest.mark.slow
@papers_own
def test_a_training_network_names_its_further_heads(entry: NetworkEntry) -> None:
    """With one slice, on a device that computes shapes only."""
    with torch.device("meta"), torch.no_grad():
        logits = build(entry, "lungs", "lesion").train()(torch.zeros(1, 1, 224, 224))
    assert list(logits)[:2] == ["lungs", "lesion"]
    assert all(re.fullmatch(r"(lungs|lesion)@\w+", head) for head in list(logits)[2:])
    assert {tuple(one.shape) for one in logits.values()} == {(1, 1, 224, 224)}


@pytest.mark.slow
@papers_own
def test_a_slice_of_odd_size_is_answered_with_numbers(entry: NetworkEntry) -> None:
    with torch.inference_mode():
        logits = build(entry).eval()(torch.rand(1, 1, 97, 131))
    assert list(logits) == ["lesion"] and logits["lesion"].shape == (1, 1, 97, 131)
    assert torch.isfinite(logits["lesion"]).all()


@pytest.mark.slow
@every_network
def test_each_parameter_has_a_gradient(entry: NetworkEntry) -> None:
    torch.manual_seed(0)
    network = build(entry).train()
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.ones_(layer.bias)  # or both of two hidden units may happen to be off
    sum(one.square().mean() for one in network(torch.rand(2, 1, 32, 40)).values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # a bias before a normalisation has none, up to rounding
        assert parameter.grad.any() or name.endswith("bias"), name


def test_multiplications_are_counted_as_on_paper() -> None:
    convolution = nn.Conv2d(1, 6, 3, stride=2, padding=1)
    grouped = nn.Conv2d(6, 4, 3, padding=1, groups=2)
    transposed = nn.ConvTranspose2d(4, 5, 2, stride=2)
    network = nn.Sequential(convolution, grouped, transposed, nn.Flatten(), nn.Linear(5 * 64, 7))
    by_hand = 16 * 9 * 6 + 16 * 9 * 3 * 4 + 16 * 4 * 4 * 5 + 5 * 64 * 7
    assert gmac(network, 8) * 1e9 == pytest.approx(by_hand)
    assert parameters(network) == 60 + 112 + 85 + 5 * 64 * 7 + 7
    assert not any(layer._forward_hooks for layer in network)  # the network is left as it was
