"""Where in a slice an answer comes from, and where that lies on the slice as it was read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_covseg.models.preparation import Preparation, reorient
from napari_covseg.networks.build import build_network
from napari_covseg.networks.classifier import Classifier
from napari_covseg.recognise.answers import heat_grid
from napari_covseg.recognise.heat_map import grad_cam, on_slice
from napari_covseg.scans.appearance import Appearance, back

SMALL: dict[str, tuple[dict[str, Any], int]] = {
    "inceptionv3": ({"width": 0.125}, 107),
    "manifestations": ({"features": [4, 8], "dense": [16, 8], "size": 32}, 32),
    "efficientnetlite0": ({}, 64),
    "efficientnetlite0 by texture": ({"stages": [2, 3]}, 64),
    "efficientunetfindings": ({"labelled": ["COVID-19", "normal"]}, 64),
}


class Bright(Classifier):
    """Says "bright" by the mean of a slice, "dark" by its negative."""

    last_layer, heat_map_layer, smallest = "fc", "seen", 8

    def __init__(self) -> None:
        super().__init__(("bright", "dark"))
        self.seen = nn.Conv2d(1, 1, 1, bias=False)
        self.ends = nn.ReLU(inplace=True)
        self.fc = nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            self.seen.weight.fill_(1)
            self.fc.weight.copy_(torch.tensor([[2.0], [-3.0]]))

    def features(self, slices: Tensor) -> Tensor:
        means: Tensor = self.ends(self.seen(slices)).mean((2, 3))
        return means

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits


def test_a_map_is_where_what_speaks_for_an_output_lies() -> None:
    slices = torch.zeros(2, 1, 8, 8)
    slices[0, 0, 2, 5], slices[0, 0, 3, 5], slices[1, 0, 6, 1] = 0.8, 0.4, 0.2
    logits, maps = grad_cam(Bright().eval(), slices, ("bright", "dark"))
    torch.testing.assert_close(logits, torch.tensor([[2.4, -3.6], [0.4, -0.6]]) / 64)
    assert maps.shape == (2, 2, 8, 8)
    torch.testing.assert_close(maps[0, 0], slices[0, 0] / 0.8)  # its brightest place is 1
    assert maps[1, 0, 6, 1] == 1 and maps[1, 0].sum() == 1
    assert not maps[:, 1].any()  # nothing speaks for dark
    assert torch.is_grad_enabled() and not logits.requires_grad


class Upper(Bright):
    """Says "bright" of the upper half alone: where something lies counts."""

    def features(self, slices: Tensor) -> Tensor:
        seen: Tensor = self.ends(self.seen(slices))
        return seen[:, :, :4].mean((2, 3)) - seen[:, :, 4:].mean((2, 3))


def test_a_map_is_true_to_a_network_for_which_places_differ() -> None:
    slices = torch.zeros(1, 1, 8, 8)
    slices[0, 0, 1, 1] = slices[0, 0, 6, 6] = 0.5
    _, maps = grad_cam(Upper().eval(), slices, ("bright", "dark"))
    assert [maps[0, n].nonzero().tolist() for n in range(2)] == [[[1, 1]], [[6, 6]]]


@pytest.mark.parametrize("name", SMALL)
def test_every_network_has_maps_and_answers_as_without_them(
    name: str, as_if_taught: Callable[[nn.Module], None]
) -> None:
    torch.manual_seed(0)
    settings, size = SMALL[name]
    network = build_network(name.split()[0], ("COVID-19", "normal"), settings).eval()
    assert isinstance(network, Classifier)
    as_if_taught(network)
    slices = torch.rand(2, 1, size, size)
    logits, maps = grad_cam(network, slices, ("normal", "COVID-19"))
    with torch.no_grad():
        plain = network(slices)
    torch.testing.assert_close(logits, torch.cat([plain["normal"], plain["COVID-19"]], 1))
    assert maps.shape[:2] == (2, 2) and min(maps.shape[2:]) > 1
    assert torch.isfinite(maps).all() and maps.amin() == 0 and maps.amax() == 1
    assert not network.get_submodule(network.heat_map_layer)._forward_hooks


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
@pytest.mark.parametrize(("cropped", "fit"), [(False, "pad"), (True, "pad"), (False, "stretch")])
def test_a_map_lies_where_the_network_saw_it(
    turned: int, cropped: bool, fit: Literal["pad", "stretch"]
) -> None:
    lying = np.zeros((60, 40), np.uint8)
    lying[36:48, 6:14] = 255
    appearance = Appearance("grey", turned=turned, cropped=cropped)
    stored = np.ascontiguousarray(back(lying, appearance))
    preparation = Preparation(size=64, clahe_clip=0, fit=fit)
    seen = preparation(reorient(stored, appearance), "grey")  # what the network marks is what is bright
    found = on_slice(
        torch.from_numpy(seen.astype(np.float32))[None] / 255, stored.shape, appearance, preparation
    )
    assert found.shape == (1, *heat_grid(stored.shape)) == (1, *stored.shape)
    right = (found[0] > 127) == (stored > 127)
    assert right.mean() > 0.98


def test_the_map_of_a_large_picture_covers_it_in_few_pixels() -> None:
    assert heat_grid((3000, 2000)) == (125, 83)
    assert heat_grid((128, 90)) == (128, 90)
    marked = torch.zeros(1, 8, 8)
    marked[0, :4, 4:] = 1
    found = on_slice(marked, (3000, 2000), Appearance("grey", "chest X-ray"), Preparation(fit="stretch"))
    assert found.shape == (1, 125, 83)
    assert found[0, :50, 48:].min() == 255 and found[0, 75:].max() == 0 and found[0, :, :33].max() == 0
