"""Inception-v3 has torchvision's tensors, and puts its maps together in torchvision's order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from napari_covseg.networks.classifier import load_weights
from napari_covseg.networks.inception import InceptionV3
from napari_covseg.networks.size import parameters

# each convolution of torchvision's inception_v3: name, channels out and in, height and width of the kernel
TORCHVISION = """
Conv2d_1a_3x3 32 3 3 3     Conv2d_2a_3x3 32 32 3 3     Conv2d_2b_3x3 64 32 3 3
Conv2d_3b_1x1 80 64 1 1    Conv2d_4a_3x3 192 80 3 3
Mixed_5b.branch1x1 64 192 1 1       Mixed_5b.branch5x5_1 48 192 1 1     Mixed_5b.branch5x5_2 64 48 5 5
Mixed_5b.branch3x3dbl_1 64 192 1 1  Mixed_5b.branch3x3dbl_2 96 64 3 3   Mixed_5b.branch3x3dbl_3 96 96 3 3
Mixed_5b.branch_pool 32 192 1 1
Mixed_5c.branch1x1 64 256 1 1       Mixed_5c.branch5x5_1 48 256 1 1     Mixed_5c.branch5x5_2 64 48 5 5
Mixed_5c.branch3x3dbl_1 64 256 1 1  Mixed_5c.branch3x3dbl_2 96 64 3 3   Mixed_5c.branch3x3dbl_3 96 96 3 3
Mixed_5c.branch_pool 64 256 1 1
Mixed_5d.branch1x1 64 288 1 1       Mixed_5d.branch5x5_1 48 288 1 1     Mixed_5d.branch5x5_2 64 48 5 5
Mixed_5d.branch3x3dbl_1 64 288 1 1  Mixed_5d.branch3x3dbl_2 96 64 3 3   Mixed_5d.branch3x3dbl_3 96 96 3 3
Mixed_5d.branch_pool 64 288 1 1
Mixed_6a.branch3x3 384 288 3 3
Mixed_6a.branch3x3dbl_1 64 288 1 1  Mixed_6a.branch3x3dbl_2 96 64 3 3   Mixed_6a.branch3x3dbl_3 96 96 3 3
Mixed_6b.branch1x1 192 768 1 1
Mixed_6b.branch7x7_1 128 768 1 1    Mixed_6b.branch7x7_2 128 128 1 7    Mixed_6b.branch7x7_3 192 128 7 1
Mixed_6b.branch7x7dbl_1 128 768 1 1 Mixed_6b.branch7x7dbl_2 128 128 7 1 Mixed_6b.branch7x7dbl_3 128 128 1 7
Mixed_6b.branch7x7dbl_4 128 128 7 1 Mixed_6b.branch7x7dbl_5 192 128 1 7 Mixed_6b.branch_pool 192 768 1 1
Mixed_6c.branch1x1 192 768 1 1
Mixed_6c.branch7x7_1 160 768 1 1    Mixed_6c.branch7x7_2 160 160 1 7    Mixed_6c.branch7x7_3 192 160 7 1
Mixed_6c.branch7x7dbl_1 160 768 1 1 Mixed_6c.branch7x7dbl_2 160 160 7 1 Mixed_6c.branch7x7dbl_3 160 160 1 7
Mixed_6c.branch7x7dbl_4 160 160 7 1 Mixed_6c.branch7x7dbl_5 192 160 1 7 Mixed_6c.branch_pool 192 768 1 1
Mixed_6d.branch1x1 192 768 1 1
Mixed_6d.branch7x7_1 160 768 1 1    Mixed_6d.branch7x7_2 160 160 1 7    Mixed_6d.branch7x7_3 192 160 7 1
Mixed_6d.branch7x7dbl_1 160 768 1 1 Mixed_6d.branch7x7dbl_2 160 160 7 1 Mixed_6d.branch7x7dbl_3 160 160 1 7
Mixed_6d.branch7x7dbl_4 160 160 7 1 Mixed_6d.branch7x7dbl_5 192 160 1 7 Mixed_6d.branch_pool 192 768 1 1
Mixed_6e.branch1x1 192 768 1 1
Mixed_6e.branch7x7_1 192 768 1 1    Mixed_6e.branch7x7_2 192 192 1 7    Mixed_6e.branch7x7_3 192 192 7 1
Mixed_6e.branch7x7dbl_1 192 768 1 1 Mixed_6e.branch7x7dbl_2 192 192 7 1 Mixed_6e.branch7x7dbl_3 192 192 1 7
Mixed_6e.branch7x7dbl_4 192 192 7 1 Mixed_6e.branch7x7dbl_5 192 192 1 7 Mixed_6e.branch_pool 192 768 1 1
AuxLogits.conv0 128 768 1 1         AuxLogits.conv1 768 128 5 5
Mixed_7a.branch3x3_1 192 768 1 1    Mixed_7a.branch3x3_2 320 192 3 3
Mixed_7a.branch7x7x3_1 192 768 1 1  Mixed_7a.branch7x7x3_2 192 192 1 7
Mixed_7a.branch7x7x3_3 192 192 7 1  Mixed_7a.branch7x7x3_4 192 192 3 3
Mixed_7b.branch1x1 320 1280 1 1
Mixed_7b.branch3x3_1 384 1280 1 1   Mixed_7b.branch3x3_2a 384 384 1 3   Mixed_7b.branch3x3_2b 384 384 3 1
Mixed_7b.branch3x3dbl_1 448 1280 1 1   Mixed_7b.branch3x3dbl_2 384 448 3 3
Mixed_7b.branch3x3dbl_3a 384 384 1 3   Mixed_7b.branch3x3dbl_3b 384 384 3 1
Mixed_7b.branch_pool 192 1280 1 1
Mixed_7c.branch1x1 320 2048 1 1
Mixed_7c.branch3x3_1 384 2048 1 1   Mixed_7c.branch3x3_2a 384 384 1 3   Mixed_7c.branch3x3_2b 384 384 3 1
Mixed_7c.branch3x3dbl_1 448 2048 1 1   Mixed_7c.branch3x3dbl_2 384 448 3 3
Mixed_7c.branch3x3dbl_3a 384 384 1 3   Mixed_7c.branch3x3dbl_3b 384 384 3 1
Mixed_7c.branch_pool 192 2048 1 1
"""


def torchvision_shapes(classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor in torchvision's file, auxiliary head included."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, *numbers in re.findall(r"(\S+) (\d+) (\d+) (\d+) (\d+)", TORCHVISION):
        shape = tuple(int(number) for number in numbers)
        shapes[f"{name}.conv.weight"] = shape
        shapes |= {
            f"{name}.bn.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")
        }
        shapes[f"{name}.bn.num_batches_tracked"] = ()
    for name, width in (("AuxLogits.fc", 768), ("fc", 2048)):
        shapes |= {f"{name}.weight": (classes, width), f"{name}.bias": (classes,)}
    return shapes


def test_it_has_torchvisions_tensors_but_those_of_the_auxiliary_head() -> None:
    expected = torchvision_shapes()
    assert len(expected) == 580
    with torch.device("meta"):
        network = InceptionV3([str(number) for number in range(1000)])
    got = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert got == {name: shape for name, shape in expected.items() if not name.startswith("AuxLogits.")}
    assert parameters(network) == 23_834_568  # as published, without the auxiliary head
    assert {layer.eps for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-3}


def test_every_tensor_of_torchvisions_file_lands(tmp_path: Path) -> None:
    """Of random values, for 1000 classes, with the auxiliary head: all but that and the last layer."""
    torch.manual_seed(0)
    file = {
        name: torch.rand(shape) if shape else torch.tensor(3) for name, shape in torchvision_shapes().items()
    }
    torch.save(file, tmp_path / "inception_v3.pth")
    network = InceptionV3()
    assert not load_weights(network, tmp_path / "inception_v3.pth")
    landed = {
        name
        for name, value in network.state_dict().items()
        if name in file and torch.equal(value, file[name])
    }
    assert file.keys() - landed == {name for name in file if name.startswith(("AuxLogits.", "fc."))}


def test_its_maps_are_as_large_as_published() -> None:
    sizes = {}
    with torch.device("meta"):
        network = InceptionV3().eval()
        for name, module in network.named_children():
            module.register_forward_hook(
                lambda _, __, out, name=name: sizes.update({name: tuple(out.shape[1:])})
            )
        features = network.features(torch.zeros(1, 1, 299, 299))
    assert sizes["Conv2d_1a_3x3"] == (32, 149, 149) and sizes["Conv2d_2a_3x3"] == (32, 147, 147)
    assert sizes["Conv2d_2b_3x3"] == (64, 147, 147) and sizes["Conv2d_4a_3x3"] == (192, 71, 71)
    mixed = {name: size for name, size in sizes.items() if name.startswith("Mixed")}
    assert list(mixed.values()) == [
        *((256, 35, 35), (288, 35, 35), (288, 35, 35)),
        *[(768, 17, 17)] * 5,
        *((1280, 8, 8), (2048, 8, 8), (2048, 8, 8)),
    ]
    assert features.shape == (1, 2048)


@pytest.mark.parametrize(
    ("block", "order"),
    [
        ("Mixed_5b", "branch1x1 branch5x5_2 branch3x3dbl_3 branch_pool"),
        ("Mixed_6a", "branch3x3 branch3x3dbl_3 -"),
        ("Mixed_6b", "branch1x1 branch7x7_3 branch7x7dbl_5 branch_pool"),
        ("Mixed_7a", "branch3x3_2 branch7x7x3_4 -"),
        (
            "Mixed_7c",
            "branch1x1 branch3x3_2a branch3x3_2b branch3x3dbl_3a branch3x3dbl_3b branch_pool",
        ),
    ],
)
def test_its_maps_are_concatenated_in_torchvisions_order(block: str, order: str) -> None:
    mixed = InceptionV3(width=0.125).eval().get_submodule(block)
    came_in = 7.0
    inside = next(module for module in mixed.modules() if isinstance(module, nn.Conv2d)).in_channels
    expected = []
    for number, name in enumerate(order.split(), 1):
        if name == "-":  # the maximum, of even maps, which is what came in
            expected.append(torch.full((inside,), came_in))
            continue
        normalisation = mixed.get_submodule(f"{name}.bn")
        nn.init.zeros_(normalisation.weight)
        nn.init.constant_(normalisation.bias, number)
        expected.append(torch.full_like(normalisation.bias, number))
    with torch.no_grad():
        out = mixed(torch.full((1, inside, 9, 9), came_in))
    torch.testing.assert_close(out[0, :, 2, 2], torch.cat(expected))


def test_grey_is_three_equal_channels_from_minus_one_to_one() -> None:
    network = InceptionV3(width=0.125).eval()
    seen: list[Tensor] = []
    network.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    slices = torch.rand(2, 1, 75, 75)
    with torch.no_grad():
        network(slices)
    # torchvision's transform_input, of a picture normalised as for ImageNet
    for channel, (mean, deviation) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        normalised = (slices[:, 0] - mean) / deviation
        transformed = normalised * (deviation / 0.5) + (mean - 0.5) / 0.5
        torch.testing.assert_close(seen[0][:, channel], transformed, rtol=0, atol=1e-6)
