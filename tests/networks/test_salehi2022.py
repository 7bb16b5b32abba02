"""U-Net++ has its heads and can be pruned; Res-UNet shrinks by stride."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from napari_covseg.errors import ModelError
from napari_covseg.networks.blocks import mean_logits
from napari_covseg.networks.build import build_network
from napari_covseg.networks.salehi2022 import PreActivationUnit, ResUNet, UNetPlusPlus
from napari_covseg.networks.size import parameters

WIDTHS = [4, 4, 8, 8]


def plusplus(**settings: Any) -> UNetPlusPlus:
    torch.manual_seed(0)
    return UNetPlusPlus(("lungs", "lesion"), WIDTHS, **settings)


def test_heads_while_training_and_their_mean_afterwards() -> None:
    network = plusplus()
    slices = torch.rand(2, 1, 33, 70)
    assert list(network.train()(slices)) == [
        f"{name}{head}" for head in ("", "@1", "@2") for name in ("lungs", "lesion")
    ]
    network.eval()
    with torch.inference_mode():
        mean = network(slices)
        heads = []
        for network.head in (1, 2, 3):
            heads.append(network(slices))
    for name in ("lungs", "lesion"):
        torch.testing.assert_close(mean[name], mean_logits([head[name] for head in heads]))
        assert not torch.allclose(heads[0][name], heads[2][name])


@pytest.mark.parametrize("head", [1, 2])
def test_pruned_it_answers_as_the_smaller_network_and_computes_no_more(head: int) -> None:
    network = plusplus(head=head).eval()
    smaller = UNetPlusPlus(("lungs", "lesion"), WIDTHS[: head + 1], head=head).eval()
    smaller.load_state_dict(
        {name: value for name, value in network.state_dict().items() if name in smaller.state_dict()}
    )
    ran = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *_, name=name: ran.append(name))
    slices = torch.rand(1, 1, 33, 70)
    with torch.inference_mode():
        torch.testing.assert_close(network(slices), smaller(slices))
    heads = {f"heads.{j}" for j in range(1, head)}
    convolutions = {name for name, layer in smaller.named_modules() if isinstance(layer, nn.Conv2d)}
    assert set(ran) == convolutions - heads


@pytest.mark.parametrize(("levels", "millions"), [(2, 0.10), (3, 0.51), (4, 2.21), (5, 9.05)])
def test_pruned_sizes_are_those_of_the_original(levels: int, millions: float) -> None:
    with torch.device("meta"):
        network = UNetPlusPlus(features=[32, 64, 128, 256, 512][:levels])
    assert round(parameters(network) / 1e6, 2) == pytest.approx(millions, abs=0.006)


def test_without_supervision_there_is_one_head() -> None:
    network = plusplus(supervision=False)
    slices = torch.rand(2, 1, 32, 32)
    assert list(network.train()(slices)) == ["lungs", "lesion"] == list(network.eval()(slices))
    with pytest.raises(ModelError, match="no head 1 over 4 levels"):
        build_network("unetpp", ("lesion",), {"features": WIDTHS, "supervision": False, "head": 1})
    with pytest.raises(ModelError, match="no head 4 over 4 levels"):
        build_network("unetpp", ("lesion",), {"features": WIDTHS, "head": 4})


def test_a_unit_is_its_shortcut_and_what_it_adds() -> None:
    unit = PreActivationUnit(3, 5, 2).eval()
    x = torch.randn(1, 3, 9, 10)
    assert unit(x).shape == (1, 5, 5, 5)
    nn.init.zeros_(unit.body[-1].weight)
    nn.init.zeros_(unit.body[-1].bias)
    torch.testing.assert_close(unit(x), unit.shortcut(x))


def test_res_unet_counts_as_on_paper_and_starts_with_a_convolution() -> None:
    def unit(a: int, b: int, first: bool = False) -> int:
        convolutions = (9 * a * b + b) + (9 * b * b + b) + (a * b + b)
        return convolutions + 2 * b + 2 * b + (0 if first else 2 * a)

    network = ResUNet(features=(4, 6), bottleneck=8)
    by_hand = unit(1, 4, True) + unit(4, 6) + unit(6, 8) + unit(14, 6) + unit(10, 4) + 4 + 1
    assert parameters(network) == by_hand
    assert isinstance(network.stem.body[0], nn.Conv2d)
    assert all(isinstance(one.body[0], nn.BatchNorm2d) for one in [*network.encoders, *network.decoders])
