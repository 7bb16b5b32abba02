"""The networks that name what a slice shows: their sizes, what they answer, and weights from a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.errors import ModelError
from napari_covseg.labels import CLASSES, MANIFESTATIONS, NAMES
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import load_model, load_network, model_bytes, unfold
from napari_covseg.models.forward import probabilities
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import CLASSIFIERS as BUILT
from napari_covseg.networks.build import build_network
from napari_covseg.networks.catalogue import BY_NAME, CATALOGUE, CLASSIFIERS, NetworkEntry
from napari_covseg.networks.classifier import Classifier, load_weights
from napari_covseg.networks.size import count

SHEET = {  # millions of parameters, as the papers report them or as their descriptions give
    "elbana2020-inception-v3": 21.790,
    "elbana2020-inception-v3-4": 21.794,
    "elbana2020-multilabel": 4.576,
    "elbana2020-efficientnet-lite0": 3.373,
    "elbana2020-efficientunet-findings": 3.423,
}
SMALL: dict[str, dict[str, Any]] = {
    "inceptionv3": {"width": 0.125},
    "manifestations": {"features": [4, 8], "dense": [16, 8], "size": 32},
    "efficientnetlite0": {},
    "efficientunetfindings": {"labelled": [*CLASSES, *MANIFESTATIONS]},
}
every_network = pytest.mark.parametrize("entry", CLASSIFIERS, ids=lambda entry: entry.name)


def small(name: str, outputs: tuple[str, ...] = ("COVID-19", "normal"), **settings: Any) -> Classifier:
    torch.manual_seed(0)
    network = build_network(name, outputs, {**SMALL[name], **settings})
    assert isinstance(network, Classifier)
    return network


@every_network
def test_it_has_the_size_of_the_catalogue(entry: NetworkEntry) -> None:
    counted, gmac = count(entry.network, entry.settings, entry.classes, entry.size)
    assert (counted, round(gmac, 3)) == (entry.parameters, entry.gmac)
    assert round(counted / 1e6, 3) == SHEET[entry.name]


def test_the_catalogue_keeps_them_apart_from_those_that_label_pixels() -> None:
    assert {entry.network for entry in CLASSIFIERS} == set(BUILT)
    assert all(entry.task == "segmentation" and not entry.classes for entry in CATALOGUE)
    for entry in CLASSIFIERS:
        assert BY_NAME[entry.name] is entry
        assert entry.task != "segmentation" and entry.classes
        assert set(entry.classes) <= set(NAMES[entry.task])


@every_network
def test_it_answers_each_output_with_a_number_for_a_slice(entry: NetworkEntry) -> None:
    with torch.device("meta"), torch.no_grad():
        network = build_network(entry.network, entry.classes, entry.settings).eval()
        assert isinstance(network, Classifier)
        logits = network(torch.zeros(3, 1, entry.size, entry.size))
        seen: list[torch.Size] = []
        layer = network.get_submodule(network.heat_map_layer)
        layer.register_forward_hook(lambda _, __, out: seen.append(out.shape))
        features = network.features(torch.zeros(3, 1, entry.size, entry.size))
        assert network.classify(features).shape == (3, len(entry.classes))
    assert {name: tuple(one.shape) for name, one in logits.items()} == dict.fromkeys(entry.classes, (3, 1))
    assert seen[0][0] == 3 and min(seen[0][2:]) > 1  # a map, with places
    assert network.get_submodule(network.last_layer).out_features == len(entry.classes)
    assert network.takes(entry.size) and not network.takes(31)


@pytest.mark.parametrize("name", ["inceptionv3", "efficientnetlite0"])
def test_it_takes_odd_sizes_down_to_its_smallest(name: str) -> None:
    network = small(name).eval()
    with torch.inference_mode():
        for shape in [(network.smallest, network.smallest), (97, 131)]:
            logits = network(torch.rand(1, 1, *shape))
            assert all(torch.isfinite(one).all() for one in logits.values())


@pytest.mark.parametrize("name", BUILT)
def test_it_is_the_same_from_a_model_file_and_made_fast(
    name: str, as_if_taught: Callable[[nn.Module], None]
) -> None:
    network = small(name)
    as_if_taught(network)
    size = max(network.smallest, 32)
    card = ModelCard(
        "x",
        "",
        "",
        {"name": name, "settings": SMALL[name]},
        Preparation(size=size).to_card(),
        network.outputs,
        dict.fromkeys(network.outputs, 0.5),
        task="recognition",
    )
    data = model_bytes(network, card, half=False)
    model, (slow, read) = load_model(data, "cpu"), load_network(data)
    assert read == card
    folded = [layer for layer in model.network.modules() if isinstance(layer, nn.Identity)]
    assert len(folded) == sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    slices = torch.rand(2, 1, size, size)
    with torch.inference_mode():
        expected = slow(slices)
        torch.testing.assert_close(model.network(slices), expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(unfold(model)(slices), expected, rtol=1e-3, atol=1e-3)


def test_a_card_that_prepares_another_size_is_refused() -> None:
    network = small("manifestations", ("ground-glass",))
    kind = {"name": "manifestations", "settings": SMALL["manifestations"]}
    card = ModelCard(
        "x", "", "", kind, {"size": 64}, network.outputs, {"ground-glass": 0.5}, task="manifestations"
    )
    with pytest.raises(
        ModelError, match="of tiny prepares slices of 64 pixels, which its network does not take"
    ):
        load_model(model_bytes(network, card), "cpu", "tiny")


def test_classes_exclude_each_other_and_manifestations_do_not() -> None:
    network = small("manifestations", ("a", "b", "c")).eval()
    slices = torch.rand(4, 1, 32, 32)
    with torch.inference_mode():
        logits = torch.cat(list(network(slices).values()), 1)
        classes = probabilities(network, slices, network.outputs, "recognition")
        labels = probabilities(network, slices, network.outputs, "manifestations")
        turned = probabilities(network, slices, ("c", "a"), "manifestations")
    torch.testing.assert_close(classes, logits.softmax(1))
    torch.testing.assert_close(labels, logits.sigmoid())
    torch.testing.assert_close(turned, labels[:, [2, 0]])


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_it_learns_by_heart_what_sixteen_pictures_are(name: str) -> None:
    """Noise in two arbitrary classes, or with three arbitrary labels; only the pictures tell."""
    exclusive = name != "manifestations"
    outputs = ("COVID-19", "normal") if exclusive else ("ground-glass", "consolidation", "pleural effusion")
    network = small(name, outputs).train()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.6  # so that what it answers with follows what it learned with in a few steps
    size = max(network.smallest, 32)
    slices = F.interpolate(torch.rand(16, 1, 8, 8), (size, size))
    numbers = torch.arange(16)[:, None]
    truth = (numbers % 2 == torch.arange(2)) if exclusive else (numbers >> torch.arange(3) & 1).bool()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(80):
        optimiser.zero_grad()
        logits = torch.cat(list(network(slices).values()), 1)
        loss = (
            F.cross_entropy(logits, truth.float())
            if exclusive
            else F.binary_cross_entropy_with_logits(logits, truth.float())
        )
        loss.backward()
        optimiser.step()
        if step % 5 == 4 and (answers(network, slices, outputs, exclusive) == truth).all():
            break
    assert (answers(network, slices, outputs, exclusive) == truth).all(), f"loss {loss:.3f} after {step + 1}"


def answers(network: Classifier, slices: Tensor, outputs: tuple[str, ...], exclusive: bool) -> Tensor:
    network.eval()
    with torch.inference_mode():
        task = "recognition" if exclusive else "manifestations"
        said = probabilities(network, slices, outputs, task) > 0.5
    network.train()
    return said


# weights from a file


def random_weights(network: Classifier, **more: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return {
        name: torch.randn_like(value) if value.is_floating_point() else value + 7
        for name, value in network.state_dict().items()
    } | more


def written(path: Path, tensors: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("name", BUILT)
def test_every_tensor_of_a_file_lands(name: str, ending: str, tmp_path: Path) -> None:
    tensors = random_weights(small(name))
    network = small(name).eval()
    assert load_weights(network, written(tmp_path / f"w.{ending}", tensors))
    for key, value in network.state_dict().items():
        assert torch.equal(value, tensors[key]), key


def test_a_file_of_other_classes_gives_all_but_the_last_layer(tmp_path: Path) -> None:
    tensors = random_weights(small("inceptionv3", tuple("abcdefg")))
    network = small("inceptionv3")
    before = network.fc.weight.detach().clone()
    assert not load_weights(network, written(tmp_path / "w.pth", tensors))
    for key, value in network.state_dict().items():
        assert key.startswith("fc.") or torch.equal(value, tensors[key]), key
    assert torch.equal(network.fc.weight, before)


def test_the_auxiliary_head_is_dropped_and_counts_of_batches_may_be_missing(tmp_path: Path) -> None:
    tensors = random_weights(small("inceptionv3"), **{"AuxLogits.fc.weight": torch.zeros(3, 2)})
    old = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    network = small("inceptionv3")
    assert load_weights(network, written(tmp_path / "w.pth", old))
    assert torch.equal(network.fc.weight, tensors["fc.weight"])
    with pytest.raises(ModelError, match="not known AuxLogits"):  # of no other network
        other = small("efficientnetlite0")
        aux = random_weights(other, **{"AuxLogits.fc.weight": torch.zeros(3, 2)})
        load_weights(other, written(tmp_path / "o.pth", aux))


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key not in names}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda t: without(t, "Mixed_5b.branch1x1.conv.weight"), "missing Mixed_5b.branch1x1.conv.weight)"),
        (lambda t: without(t, "fc.weight", "fc.bias"), "missing fc.weight, fc.bias)"),
        (lambda t: without(t, "fc.bias"), "missing fc.bias)"),
        (lambda t: {**t, "fc.bias": torch.zeros(9)}, "of another shape fc.bias (9,) for (2,))"),
        (
            lambda t: {**t, "fc.weight": torch.zeros(9, 5), "fc.bias": torch.zeros(9)},
            "of another shape fc.weight (9, 5) for (2, 256), fc.bias (9,) for (2,))",
        ),
        (lambda t: {**t, "extra": torch.zeros(1)}, "not known extra)"),
        (
            lambda t: {**t, "Conv2d_1a_3x3.bn.bias": torch.zeros(5)},
            "of another shape Conv2d_1a_3x3.bn.bias (5,) for (4,))",
        ),
        (lambda t: {f"module.{key}": value for key, value in t.items()}, "and 469 more; not known module."),
    ],
)
def test_a_file_that_does_not_fit_says_where(spoil: Any, told: str, tmp_path: Path) -> None:
    network = small("inceptionv3")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    path = written(tmp_path / "w.pth", spoil(random_weights(network)))
    with pytest.raises(ModelError, match=re.escape(told)) as error:
        load_weights(network, path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Foreign:
    pass


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_damaged_or_foreign_file_is_refused(ending: str, tmp_path: Path) -> None:
    network = small("manifestations")
    whole = written(tmp_path / f"w.{ending}", random_weights(network))
    (cut := tmp_path / f"cut.{ending}").write_bytes(whole.read_bytes()[:-500])
    (noise := tmp_path / f"noise.{ending}").write_bytes(b"no weights" * 99)
    (empty := tmp_path / f"empty.{ending}").touch()
    for path in (cut, noise, empty):
        with pytest.raises(ModelError, match="is damaged or holds no weights") as error:
            load_weights(network, path)
        assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="does not exist"):
        load_weights(network, tmp_path / f"nothing.{ending}")


@pytest.mark.parametrize("foreign", [Foreign(), [torch.zeros(1)], {"state_dict": {"x": torch.zeros(1)}}])
def test_what_is_no_table_of_tensors_is_refused(foreign: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"what PyTorch saved of a network's state_dict\(\)\.$"):
        load_weights(small("manifestations"), written(tmp_path / "w.pth", foreign))
