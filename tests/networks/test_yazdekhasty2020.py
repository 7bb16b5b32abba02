"""The bifurcated autoencoder has its three heads, its gate and its switches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.errors import ModelError
from napari_covseg.networks.build import build_network
from napari_covseg.networks.catalogue import BY_NAME
from napari_covseg.networks.size import parameters

SMALL: dict[str, Any] = {"features": [4, 4, 8, 8], "merge_features": [4, 4, 4]}


def small(outputs: tuple[str, ...] = ("lesion",), **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network("bifurcated", outputs, {**SMALL, **settings})


@pytest.mark.parametrize(("preset", "millions"), [("", 2.578), ("-small", 0.647), ("-wide", 4.005)])
def test_presets_are_as_large_as_was_meant(preset: str, millions: float) -> None:
    """To 1 %: the widths of the wide one's decoders are a guess at what gives its size."""
    entry = BY_NAME[f"yazdekhasty2020-bifurcated{preset}"]
    assert entry.parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_the_lungs_as_an_output_cost_nothing() -> None:
    assert parameters(small()) == parameters(small(("lungs", "lesion")))


@pytest.mark.parametrize("size", [(97, 131), (64, 48), (8, 8)])
@pytest.mark.parametrize("outputs", [("lesion",), ("lungs", "lesion"), ("lesion", "lungs")])
def test_any_size_comes_back_as_it_went_in(size: tuple[int, int], outputs: tuple[str, ...]) -> None:
    network = small(outputs).eval()
    with torch.inference_mode():
        logits = network(torch.rand(1, 1, *size))
    assert tuple(logits) == outputs
    for one in logits.values():
        assert one.shape == (1, 1, *size)
        assert torch.isfinite(one).all()


def test_training_adds_the_infection_decoder_and_lungs_that_are_no_output() -> None:
    images = torch.rand(2, 1, 16, 16)
    assert list(small()(images)) == ["lesion", "lungs@aux", "lesion@aux"]
    assert list(small(("lungs", "lesion"))(images)) == ["lungs", "lesion", "lesion@aux"]


@pytest.mark.parametrize("settings", [{}, {"norm": False, "pass_input": True}])
def test_every_parameter_has_a_finite_gradient_from_one_odd_slice(settings: dict[str, Any]) -> None:
    network = small(("lungs", "lesion"), **settings)
    weights = {"lungs": 0.5, "lesion@aux": 1.0, "lesion": 2.0}  # section 2.2
    logits = network(torch.rand(1, 1, 41, 51))
    truth = (torch.rand(1, 1, 41, 51) > 0.5).float()
    loss = sum(
        weight * F.binary_cross_entropy_with_logits(logits[key], truth) for key, weight in weights.items()
    )
    assert isinstance(loss, Tensor)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_final_loss_alone_reaches_the_lung_decoder() -> None:
    network = small()
    network(torch.rand(1, 1, 32, 32))["lesion"].square().mean().backward()
    assert network.lungs.head.weight.grad.abs().max() > 0


def test_outside_the_lungs_the_hard_gate_hides_the_slice_and_the_soft_one_fades_it() -> None:
    images = torch.rand(1, 1, 32, 32)
    soft, hard = small(gate="soft").eval(), small(gate="hard").eval()
    for network in (soft, hard):
        nn.init.constant_(network.lungs.head.bias, -30.0)  # no lungs anywhere
        nn.init.zeros_(network.lungs.head.weight)
        with torch.inference_mode():
            hidden = network(images)["lesion"]
            blank = network.merge(torch.zeros(1, 2, 32, 32))
        torch.testing.assert_close(hidden, blank)
        nn.init.constant_(network.lungs.head.bias, -1.0)  # probably no lungs
    with torch.inference_mode():
        torch.testing.assert_close(hard(images)["lesion"], blank)
        assert not torch.allclose(soft(images)["lesion"], blank)


def test_the_hard_gate_is_soft_while_training() -> None:
    images = torch.rand(1, 1, 32, 32)
    soft, hard = small(gate="soft"), small(gate="hard")
    torch.testing.assert_close(hard(images)["lesion"], soft(images)["lesion"])
    assert not torch.allclose(hard.eval()(images)["lesion"], soft.eval()(images)["lesion"])


def test_switches_change_what_is_built() -> None:
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small(norm=False).modules())
    assert parameters(small(pass_input=True)) > parameters(small())
    first = small(dilation=5).encoder.inception.branches
    assert [[layer[0].dilation[0] for layer in branch] for branch in first] == [[1, 1], [5, 5], [5, 5]]


@pytest.mark.parametrize("settings", [{"gate": "none"}, {"features": []}, {"infection_features": [4]}])
def test_settings_that_do_not_fit_are_a_model_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="does not take the settings"):
        small(**settings)


@pytest.mark.parametrize("outputs", [("lungs",), ("lesion", "lesion"), ("lesion", "heart")])
def test_it_needs_the_lesion_as_an_output(outputs: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="with or without 'lungs'"):
        small(outputs)
