"""RD-UNet and ResDUNet: their switches, counted on paper, and what a unit computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_covseg.errors import ModelError
from napari_covseg.networks.amer2021 import RDUNet, ResDUNet, ResidualUnit, dilated_module
from napari_covseg.networks.build import build_network
from napari_covseg.networks.size import parameters

SMALL: dict[str, Any] = {"features": [4, 8], "bottleneck": 16}


def conv(kernel: int, a: int, b: int) -> int:
    """Count a convolution without bias and its normalisation."""
    return kernel**2 * a * b + 2 * b


def by_hand(residual: str, se: bool, dc: str) -> int:
    """Count RD-UNet of the paper's widths as one would on paper."""
    widths, bottom = [16, 32, 64, 128], 512

    def unit(a: int, b: int) -> int:
        merge = {"concat": conv(1, a + b, b), "add": conv(1, a, b) if a != b else 0, "none": 0}[residual]
        hidden = b // 8
        return conv(3, a, b) + conv(3, b, b) + merge + se * (2 * b * hidden + hidden + b)

    total = unit(128, bottom)
    for level, (before, width) in enumerate(zip([1, *widths], widths, strict=False)):
        skip = width // 2 if dc == "half" else width
        convs = 0 if dc == "none" else [6, 6, 4, 4][level]
        total += unit(before, width) + unit(width + skip, width)
        total += conv(1, [*widths, bottom][level + 1], width)
        total += sum(conv(3, width if i == 0 else skip, skip) for i in range(convs))
    return total + 16 + 1


@pytest.mark.parametrize("residual", ["concat", "add", "none"])
@pytest.mark.parametrize("se", [True, False])
@pytest.mark.parametrize("dc", ["half", "full", "none"])
def test_each_switch_costs_what_it_should(residual: str, se: bool, dc: str) -> None:
    with torch.device("meta"):
        network = build_network("rdunet", ("lesion",), {"residual": residual, "se": se, "dc": dc})
        assert parameters(network) == by_hand(residual, se, dc)


def test_a_unit_adds_or_keeps_its_input() -> None:
    x = torch.randn(2, 4, 6, 6)
    added = ResidualUnit(4, 4, "add", 0.5).eval()
    for parameter in added.body.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(added(x), F.relu(x))  # equation 1: the identity and nothing else
    plain = ResidualUnit(4, 4, "none", 0.5).eval()
    torch.testing.assert_close(plain(x), F.relu(plain.body(x)))
    joined = ResidualUnit(4, 6, "concat", 0.5).eval()
    torch.testing.assert_close(joined(x), joined.merge(torch.cat([x, F.relu(joined.body(x))], 1)))


def test_dropout_lies_after_the_first_relu_and_can_be_set() -> None:
    kinds = [type(layer) for layer in ResidualUnit(1, 2, "add", 0.3).body]
    assert kinds[:4] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout]
    network = RDUNet(dropout=0.25, **SMALL)
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.25}


def test_a_dilated_module_sees_as_far_as_its_dilations_add_up_to() -> None:
    module = dilated_module(1, 1, (1, 2, 3, 3, 2, 1))
    for layer in module:
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    seen = module.eval()(point)[0, 0, 20].nonzero()[:, 0]
    assert (seen.min(), seen.max()) == (20 - 12, 20 + 12)


def dilations(network: nn.Module) -> list[list[int]]:
    return [[layer.dilation[0] for layer in skip if isinstance(layer, nn.Conv2d)] for skip in network.skips]


def test_the_two_networks_differ_in_their_dilations_and_sums() -> None:
    with torch.device("meta"):
        growing, falling = RDUNet(), ResDUNet()
        six = ResDUNet(features=(2, 4, 4, 4, 4), bottleneck=4)
    assert dilations(growing) == [[1, 2, 3, 3, 2, 1]] * 2 + [[1, 2, 2, 1]] * 2
    assert dilations(falling) == [[3, 3, 2, 2, 1, 1]] * 2 + [[2, 2, 1, 1]] * 2
    assert [len(one) for one in dilations(six)] == [6, 6, 6, 4, 4]  # the upper half, rounded up
    assert falling.bottom[0].residual == "add" and growing.bottom[0].residual == "concat"


@pytest.mark.parametrize(
    "settings", [{"residual": "times"}, {"dc": "quarter"}, {"dilations": [[1, 2]]}, {"dropout": 2.0}]
)
def test_settings_that_do_not_fit_are_a_model_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="does not take the settings"):
        build_network("rdunet", ("lesion",), SMALL | settings)
