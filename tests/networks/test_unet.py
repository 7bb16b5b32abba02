"""The U-Net has the size of the paper, takes any slice size and can learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_covseg.errors import ModelError
from napari_covseg.networks.build import build_network
from napari_covseg.networks.unet import UNet

SMALL = {"features": [4, 8], "bottleneck": 16}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def by_hand(features: list[int], bottleneck: int) -> int:
    """Count as one would on paper: 3x3 without bias, batch normalisation, 2x2 transposed, 1x1."""

    def double(a: int, b: int) -> int:
        return 9 * a * b + 2 * b + 9 * b * b + 2 * b

    total = sum(double(a, b) for a, b in zip([1, *features], [*features, bottleneck], strict=True))
    for below, width in zip([*features[1:], bottleneck], features, strict=True):
        total += 4 * below * width + width + double(2 * width, width)
    return total + features[0] + 1


@pytest.mark.parametrize(
    ("features", "bottleneck", "count"),
    [
        ([16, 32, 64, 128], 512, 4_138_769),  # the paper's 4.1 M
        ([16, 32, 64, 128, 256], 512, 7_778_321),  # the paper's prose: twice as wide at each of six levels
        ([16, 32, 64, 128], 256, 1_942_289),  # the paper's prose: four skips, doubling throughout
    ],
)
def test_parameters_as_in_the_sheet(features: list[int], bottleneck: int, count: int) -> None:
    network = build_network("unet", ("lesion",), {"features": features, "bottleneck": bottleneck})
    assert parameters(network) == count == by_hand(features, bottleneck)


def test_default_is_the_network_of_the_paper() -> None:
    assert round(parameters(UNet()) / 1e6, 3) == 4.139


def test_each_output_has_a_name_and_costs_one_row_of_the_head() -> None:
    one = build_network("unet", ("lesion",), SMALL)
    two = build_network("unet", ("lungs", "lesion"), SMALL)
    assert list(two(torch.zeros(1, 1, 64, 64))) == ["lungs", "lesion"]
    assert parameters(two) - parameters(one) == SMALL["features"][0] + 1  # type: ignore[index]


@pytest.mark.parametrize("size", [(256, 256), (224, 224), (97, 131), (64, 200), (16, 16)])
def test_any_size_comes_back_as_it_went_in(size: tuple[int, int]) -> None:
    network = UNet(("lungs", "lesion"), (2, 2, 4, 4), 8).eval()  # as deep as the paper's
    with torch.inference_mode():
        logits = network(torch.rand(1, 1, *size))
    for name in ("lungs", "lesion"):
        assert logits[name].shape == (1, 1, *size)
        assert torch.isfinite(logits[name]).all()


def test_a_slice_is_judged_alone() -> None:
    """In evaluation mode the other slices of a batch do not matter."""
    network = UNet(("lungs",), **SMALL).eval()
    images = torch.rand(3, 1, 64, 64)
    with torch.inference_mode():
        together = network(images)["lungs"]
        alone = network(images[1:2])["lungs"]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_every_parameter_has_a_finite_gradient() -> None:
    torch.manual_seed(0)
    network = UNet(("lungs", "lesion"), (4, 8, 8, 16), 32)
    logits = network(torch.rand(2, 1, 97, 131))
    F.binary_cross_entropy_with_logits(
        torch.cat(list(logits.values()), 1), torch.ones(2, 2, 97, 131)
    ).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_learns_a_few_slices_by_heart() -> None:
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    discs = torch.stack(
        [(y - a) ** 2 + (x - b) ** 2 < r * r for a, b, r in [(20, 20, 9), (40, 30, 14), (32, 48, 6)]]
    )
    truth = discs[:, None].float()
    images = 0.3 * truth + 0.2 * torch.rand(3, 1, 64, 64)
    network = build_network("unet", ("lesion",), SMALL)
    optimiser = torch.optim.Adam(network.parameters(), 2e-2)
    for _ in range(30):
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(network(images)["lesion"], truth).backward()
        optimiser.step()
    with torch.inference_mode():
        found = network.eval()(images)["lesion"] > 0
    overlap = 2 * (found & discs[:, None]).sum() / (found.sum() + discs.sum())
    assert overlap > 0.9


def test_too_small_a_slice_is_a_fault_and_not_an_answer() -> None:
    with pytest.raises(RuntimeError):
        UNet(("lesion",), (2, 2, 4, 4), 8).eval()(torch.zeros(1, 1, 8, 8))


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ModelError, match="'vnet' is not known here; known are unet"):
        build_network("vnet", ("lesion",), {})


@pytest.mark.parametrize(
    "settings",
    [{"width": 3}, {"features": 16}, {"features": []}, {"features": [4, "8"]}, {"features": [4, -8]}],
)
def test_settings_that_do_not_fit_are_a_model_error(settings: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="does not take the settings"):
        build_network("unet", ("lesion",), settings)
