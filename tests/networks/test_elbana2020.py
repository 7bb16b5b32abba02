"""DeepLab-v3+ sees as far as its rates say, shrinks as much as its stride says, and learns from one slice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_covseg.errors import ModelError
from napari_covseg.networks.build import build_network
from napari_covseg.networks.catalogue import BY_NAME
from napari_covseg.networks.elbana2020 import AtrousPyramid, DeepLabV3Plus
from napari_covseg.networks.size import parameters
from napari_covseg.networks.xception import Xception65


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return DeepLabV3Plus(("lungs", "lesion"))


def test_the_papers_network_has_the_papers_rates() -> None:
    assert BY_NAME["elbana2020-deeplabv3plus"].settings["rates"] == [6, 12, 18]
    assert round(BY_NAME["elbana2020-deeplabv3plus"].parameters / 1e6, 2) == 41.05


def test_the_backbone_is_as_large_as_xception_65_for_one_channel() -> None:
    """39.9 M in the literature, of which 2.049 M are the classifier of 1000 classes, and 576 see colours."""
    with torch.device("meta"):
        assert parameters(Xception65()) + 1000 * 2049 + 576 == pytest.approx(39.9e6, abs=5e4)


@pytest.mark.parametrize("size", [(61, 47), (5, 3)])
def test_any_size_comes_back_as_it_went_in(network: nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        logits = network.eval()(torch.rand(1, 1, *size))
    assert list(logits) == ["lungs", "lesion"]
    for one in logits.values():
        assert one.shape == (1, 1, *size)
        assert torch.isfinite(one).all()


def test_every_parameter_has_a_finite_gradient_from_one_odd_slice(network: nn.Module) -> None:
    network.train().zero_grad()
    logits = network(torch.rand(1, 1, 33, 41))
    F.binary_cross_entropy_with_logits(
        torch.cat(list(logits.values()), 1), (torch.rand(1, 2, 33, 41) > 0.5).float()
    ).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    network.zero_grad()


def test_weights_begin_as_he_has_them_where_no_relu_halves_the_variance(network: Any) -> None:
    weights = network.pyramid.join[0].weight
    assert float(weights.detach().std()) == pytest.approx(weights[0].numel() ** -0.5, rel=0.02)


def test_a_quarter_of_the_widths_sees_as_far() -> None:
    network: Any = build_network("deeplabv3plus", ("lesion",), {"width": 0.25, "middle_blocks": 1}).eval()
    whole = build_network("deeplabv3plus", ("lesion",), {"middle_blocks": 1})
    shapes = [
        [module.weight.shape for module in one.modules() if isinstance(module, nn.Conv2d)]
        for one in (network, whole)
    ]
    assert all(4 * a[0] == b[0] for a, b in zip(*shapes, strict=True) if b[0] > 1)
    with torch.inference_mode():
        low, deep = network.backbone(torch.rand(1, 1, 64, 64))
        assert (low.shape, deep.shape) == ((1, 64, 16, 16), (1, 512, 4, 4))
        assert network(torch.rand(1, 1, 64, 48))["lesion"].shape == (1, 1, 64, 48)


@pytest.mark.parametrize(("stride", "size", "dilations"), [(8, 8, {1, 2, 4}), (16, 4, {1, 2}), (32, 2, {1})])
def test_what_is_not_shrunk_is_dilated(stride: int, size: int, dilations: set[int]) -> None:
    backbone = Xception65(stride, middle_blocks=1).eval()
    with torch.inference_mode():
        low, deep = backbone(torch.rand(1, 1, 64, 64))
    assert low.shape == (1, 256, 16, 16)
    assert deep.shape == (1, 2048, size, size)
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert {module.dilation[0] for module in convolutions} == dilations


def test_the_pyramid_looks_as_far_as_its_rates_and_at_the_whole_map() -> None:
    torch.manual_seed(0)
    pyramid = AtrousPyramid(4, (2, 5), channels=8).eval()
    x = torch.rand(1, 4, 15, 15, requires_grad=True)
    parts = [(pyramid.centre, {0}), (pyramid.around[0], {0, 2}), (pyramid.around[1], {0, 5})]
    for part, distances in parts:
        (gradient,) = torch.autograd.grad(part(x)[0, :, 7, 7].sum(), x)
        seen = gradient[0].abs().sum(0).nonzero() - 7
        assert {int(distance) for distance in seen.abs().flatten()} == distances
    (gradient,) = torch.autograd.grad(pyramid.whole(x.mean((2, 3), keepdim=True)).sum(), x)
    assert gradient.abs().sum(1).all()


def test_the_whole_map_counts_in_a_batch_of_one_as_in_a_larger_one() -> None:
    torch.manual_seed(0)
    pyramid = AtrousPyramid(4, (1,), channels=8).train()
    x = torch.rand(2, 4, 6, 6)
    means = x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(pyramid.whole(means)[:1], pyramid.whole(means[:1]))
    assert pyramid(x[:1]).shape == (1, 8, 6, 6)


@pytest.mark.parametrize("settings", [{"output_stride": 4}, {"rates": 6}, {"width": 0.01}, {"depth": 3}])
def test_settings_that_do_not_fit_are_a_model_error(settings: dict[str, Any]) -> None:
    with torch.device("meta"), pytest.raises(ModelError, match="does not take the settings"):
        build_network("deeplabv3plus", ("lesion",), settings)
