"""What is written for other programs computes the same, at any size, and says what it is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from napari_covseg.errors import ModelError
from napari_covseg.models import export
from napari_covseg.models.card import ModelCard
from napari_covseg.models.export import export_network
from napari_covseg.networks.build import build_network


@pytest.mark.slow
def test_onnx_answers_as_the_network_at_any_size(network: nn.Module, card: ModelCard, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tiny.onnx"
    done = export_network(network, path, "onnx", card.to_json())
    assert done.path == path and done.outputs == ("lungs", "lesion")
    assert 0 <= done.max_difference < 1e-4
    (stored,) = onnx.load(path).metadata_props
    assert stored.key == "card" and ModelCard.from_json(stored.value) == card
    session = onnxruntime.InferenceSession(path)
    assert [one.name for one in session.get_outputs()] == ["lungs", "lesion"]
    for size in [(1, 1, 16, 200), (3, 1, 33, 70), (2, 1, 96, 112)]:
        slices = torch.rand(size)
        with torch.inference_mode():
            expected = network(slices)
        for name, answer in zip(expected, session.run(None, {"slices": slices.numpy()}), strict=True):
            np.testing.assert_allclose(answer, expected[name], atol=1e-3)


def test_a_network_of_one_size_is_exported_for_that_size(tmp_path: Path) -> None:
    path = tmp_path / "labels.onnx"
    outputs = ("ground-glass", "pleural effusion")
    settings = {"features": [4, 8], "dense": [16, 8], "size": 64}
    network = build_network("manifestations", outputs, settings).eval()
    done = export_network(network, path, "onnx")
    assert done.outputs == outputs and 0 <= done.max_difference < 1e-4
    slices = torch.rand(5, 1, 64, 64)
    with torch.inference_mode():
        expected = network(slices)
    answers = onnxruntime.InferenceSession(path).run(None, {"slices": slices.numpy()})
    for name, answer in zip(outputs, answers, strict=True):
        assert answer.shape == (5, 1)
        np.testing.assert_allclose(answer, expected[name], atol=1e-3)


def test_torch_answers_without_this_package(network: nn.Module, card: ModelCard, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt2"
    done = export_network(network, path, "torch", card.to_json())
    assert done.max_difference < 1e-5
    extra = {"card.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["card.json"])["id"] == "tiny"
    slices = torch.rand(3, 1, 33, 70)
    with torch.inference_mode():
        lungs, lesion = module(slices)
        expected = network(slices)
    torch.testing.assert_close(lungs, expected["lungs"])
    torch.testing.assert_close(lesion, expected["lesion"])


def test_a_training_network_is_exported_as_it_predicts_and_left_alone(tmp_path: Path) -> None:
    network = build_network("unetpp", ("lesion",), {"features": [2, 4, 4]}).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    done = export_network(network, tmp_path / "x.pt2", "torch")
    assert done.outputs == ("lesion",)  # without the heads that only training has
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_missing_packages_are_named(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else real(name)
    )
    with pytest.raises(ModelError, match=r"needs onnxscript, not installed here: run `pip install"):
        export_network(network, tmp_path / "x.onnx", "onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_file_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    network = build_network("unet", ("lesion",), {"features": [2], "bottleneck": 2}).eval()
    monkeypatch.setattr(
        export, "_torch", lambda *_: (b"new", lambda slices: [network(slices)["lesion"] + wrong])
    )
    old = tmp_path / "x.pt2"
    old.write_bytes(b"old")
    with pytest.raises(ModelError, match="differs from PyTorch by"):
        export_network(network, old, "torch")
    assert old.read_bytes() == b"old" and list(tmp_path.iterdir()) == [old]


def test_a_folder_that_takes_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    network = build_network("unet", ("lesion",), {"features": [2], "bottleneck": 2})
    with pytest.raises(ModelError, match=r"x\.pt2 cannot be written"):
        export_network(network, tmp_path / "file" / "x.pt2", "torch")
