"""RAIU-Net and CHS-Net: sizes, switches, and a gate between two networks in a row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_covseg.errors import ModelError
from napari_covseg.networks.build import build_network
from napari_covseg.networks.punn2022 import HybridPool, MaxHalf, SpectralAttention
from napari_covseg.networks.size import parameters

FEATURES = [3, 4, 5]  # two poolings
BOTH = ["raiunet", "chsnet"]


def small(name: str, outputs: tuple[str, ...] = ("lungs", "lesion"), **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, outputs, {"features": FEATURES, **settings})


def test_chsnet_is_two_raiunets() -> None:
    assert parameters(small("chsnet")) == 2 * parameters(small("raiunet", ("lesion",)))


@pytest.mark.parametrize("size", [(97, 131), (64, 48), (33, 2)])
@pytest.mark.parametrize("name", BOTH)
def test_any_size_comes_back_as_it_went_in(name: str, size: tuple[int, int]) -> None:
    network = small(name).eval()
    with torch.inference_mode():
        logits = network(torch.rand(1, 1, *size))
    assert list(logits) == ["lungs", "lesion"]
    for one in logits.values():
        assert one.shape == (1, 1, *size)
        assert torch.isfinite(one).all()


@pytest.mark.parametrize("name", BOTH)
def test_every_parameter_has_a_finite_gradient_from_one_odd_slice(name: str) -> None:
    network = small(name)
    logits = network(torch.rand(1, 1, 37, 41))
    truth = (torch.rand(1, 2, 37, 41) > 0.5).float()
    F.binary_cross_entropy_with_logits(torch.cat(list(logits.values()), 1), truth).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


@pytest.mark.parametrize("name", BOTH)
def test_half_precision_comes_near_full_precision(name: str) -> None:
    network = small(name, gate="soft").eval() if name == "chsnet" else small(name).eval()
    images = torch.rand(2, 1, 40, 24)
    with torch.inference_mode():
        full = network(images)["lesion"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(images)["lesion"].float()
    assert (half - full).square().mean().sqrt() < 0.1 * full.std() + 0.05


@pytest.mark.parametrize(
    "switches",
    [
        dict(zip(("rib", "hp", "ssd"), bits, strict=True))
        for bits in [(False, False, False), (True, False, False), (True, True, False), (False, True, True)]
    ],
)
def test_parts_can_be_left_out(switches: dict[str, bool]) -> None:
    network = small("raiunet", ("lesion",), **switches)
    assert network(torch.rand(2, 1, 20, 19))["lesion"].shape == (2, 1, 20, 19)
    assert parameters(network) < parameters(small("raiunet", ("lesion",)))
    kinds = [type(module) for module in network.modules()]
    assert (SpectralAttention in kinds) == switches["ssd"]
    spectral = any(module.spectral for module in network.modules() if isinstance(module, HybridPool))
    assert spectral == switches["hp"]


@pytest.mark.parametrize("size", [(5, 8), (7, 7), (4, 6)])
def test_pooling_is_the_same_in_a_graph(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    x = -torch.rand(1, 2, *size)  # 0 beyond the edge would win
    pooled = MaxHalf()(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(MaxHalf()(x), pooled)


def test_the_skip_is_not_shifted_by_odd_sizes() -> None:
    """Pooling rounds up, so that the deeper map has a pixel for the last row of the skip."""
    attention = SpectralAttention(2, 3)
    assert attention(torch.rand(2, 2, 15, 8), torch.rand(2, 3, 8, 4)).shape == (2, 2, 15, 8)


def without_lungs(**settings: Any) -> nn.Module:
    """A CHS-Net that sees lungs in the left half of the slice alone."""
    network = small("chsnet", **settings).eval()

    class Left(nn.Module):
        def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
            columns = torch.arange(slices.shape[-1])
            return {"lungs": torch.where(columns < 16, 1.0, -1.0).expand_as(slices)}

    network.lungs = Left()
    return network


def seen_by_the_lesion_network(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = network.lesion.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        network(images)
    handle.remove()
    return seen[0]


def test_the_hard_gate_shows_the_lungs_alone_and_training_fades_the_rest() -> None:
    images = torch.rand(2, 1, 32, 32) + 0.1
    network = without_lungs()
    seen = seen_by_the_lesion_network(network, images)
    torch.testing.assert_close(seen[..., :16], images[..., :16])
    assert not seen[..., 16:].any()
    for soft in (network.train(), without_lungs(gate="soft")):
        seen = seen_by_the_lesion_network(soft, images)
        torch.testing.assert_close(seen[..., :16], images[..., :16] * torch.sigmoid(torch.tensor(1.0)))
        torch.testing.assert_close(seen[..., 16:], images[..., 16:] * torch.sigmoid(torch.tensor(-1.0)))


def test_the_hard_gate_can_be_grown() -> None:
    images = torch.ones(1, 1, 32, 32)
    seen = seen_by_the_lesion_network(without_lungs(gate_dilation=3), images)
    assert seen[..., :19].all()
    assert not seen[..., 19:].any()


@pytest.mark.parametrize("joint", [True, False])
def test_the_lesions_loss_trains_the_lungs_only_if_wished(joint: bool) -> None:
    network = small("chsnet", ("lesion",), joint=joint)
    logits = network(torch.rand(2, 1, 24, 24))
    assert list(logits) == ["lesion", "lungs@aux"]
    logits["lesion"].square().mean().backward()
    assert (network.lungs.head.weight.grad is not None) == joint


@pytest.mark.parametrize(
    "settings", [{"gate": "none"}, {"gate_dilation": -1}, {"features": []}, {"rib": True, "wide": 3}]
)
def test_settings_that_do_not_fit_are_a_model_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="does not take the settings"):
        build_network("chsnet", ("lesion",), settings)


def test_chsnet_needs_the_lesion_as_an_output() -> None:
    with pytest.raises(ModelError, match="with or without 'lungs'"):
        small("chsnet", ("lungs",))
