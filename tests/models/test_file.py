"""A model file gives back the network that was saved, and damage never passes for a model."""

from __future__ import annotations

import dataclasses
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from napari_covseg.errors import ModelError
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import choose_device, load_model, load_network, model_bytes, save_model, unfold
from napari_covseg.networks.build import build_network

IMAGES = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def logits(network: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat(list(network(IMAGES).values()), 1)


def test_round_trip_in_full_precision(tmp_path: Path, network: nn.Module, card: ModelCard) -> None:
    save_model(tmp_path / "deep" / "full.safetensors", network, card, half=False)
    again, its_card = load_network(tmp_path / "deep" / "full.safetensors")
    assert its_card == card
    assert not again.training
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_round_trip_in_half_precision(file: Path, network: nn.Module) -> None:
    with safe_open(file, "pt") as stored:
        kinds = {stored.get_tensor(name).dtype for name in stored.keys()}
    assert kinds == {torch.float16, torch.int64}  # the counters of the normalisation stay whole numbers
    again, _ = load_network(file)
    for name, value in network.state_dict().items():
        restored = again.state_dict()[name]
        assert restored.dtype == value.dtype
        torch.testing.assert_close(restored, value, rtol=1e-3, atol=1e-6)


def test_saving_leaves_the_network_as_it_is(tmp_path: Path, card: ModelCard) -> None:
    network = build_network("unet", card.outputs, card.network["settings"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save_model(tmp_path / "a.safetensors", network, card)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(before[name], value)


def test_folded_normalisation_changes_nothing(file: Path) -> None:
    plain, _ = load_network(file)
    model = load_model(file, "cpu")
    assert any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.network.modules())
    torch.testing.assert_close(logits(model.network), logits(plain), rtol=1e-5, atol=1e-5)
    assert logits(plain).abs().max() > 0.05  # not trivially equal


def test_a_loaded_model_is_ready(file: Path, card: ModelCard) -> None:
    model = load_model(file, "cpu")
    assert model.card == card
    assert model.preparation.size == 64
    assert model.device == torch.device("cpu")
    assert not model.network.training


def test_no_pickle_is_ever_run(tmp_path: Path, network: nn.Module) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (ran,)  # type: ignore[return-value]

    for name, write in {
        "a.safetensors": lambda path: path.write_bytes(pickle.dumps(Evil())),
        "b.safetensors": lambda path: torch.save({"weights": Evil()}, path),
        "c.pt": lambda path: torch.save({"weights": Evil()}, path),
    }.items():
        write(tmp_path / name)
        with pytest.raises(ModelError):
            load_network(tmp_path / name)
    assert not ran.exists()


@pytest.mark.parametrize("share", [0.99, 0.6, 0.3, 0.01])
def test_a_truncated_file(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=str(file)) as error:
        load_network(file)
    assert "\n" not in str(error.value)


def test_flipped_bits_in_the_header(file: Path) -> None:
    """Each ends in a model or in a ModelError; no other exception comes out."""
    content = file.read_bytes()
    length = 8 + struct.unpack("<Q", content[:8])[0]
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[random.integers(length)] ^= 1 << int(random.integers(8))
        file.write_bytes(damaged)
        try:
            load_network(file)
        except ModelError:
            refused += 1
    assert refused > 50


def test_weights_that_do_not_fit_the_card(tmp_path: Path, network: nn.Module, card: ModelCard) -> None:
    other = {"name": "unet", "settings": {"features": [4, 8], "bottleneck": 8}}
    save_model(tmp_path / "a.safetensors", network, dataclasses.replace(card, network=other))
    with pytest.raises(ModelError, match="do not fit its card"):
        load_network(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": {"name": "vnet", "settings": {}}}, "'vnet' is not known here"),
        ({"network": {"settings": {}}}, "no readable model card"),
        ({"network": {"name": "unet", "settings": ["features"]}}, "no readable model card"),
        ({"preparation": {"gamma": 2}}, "preparation"),
    ],
)
def test_a_network_of_somebody_else(
    tmp_path: Path, network: nn.Module, card: ModelCard, values: dict[str, object], message: str
) -> None:
    save_model(tmp_path / "a.safetensors", network, dataclasses.replace(card, **values))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "a.safetensors", "cpu")


def test_safetensors_without_a_card(tmp_path: Path, network: nn.Module) -> None:
    safetensors.torch.save_file(dict(network.state_dict()), tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="no model card"):
        load_network(tmp_path / "a.safetensors")


def test_an_interrupted_write_leaves_the_file_before(
    file: Path, network: nn.Module, card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def half_way(path: Path, data: bytes) -> int:
        with path.open("wb") as part:
            part.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half_way)
    with pytest.raises(ModelError, match=r"cannot be written .*No space left on device"):
        save_model(file, network, dataclasses.replace(card, id="newer"))
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_folder_that_cannot_be_made(tmp_path: Path, network: nn.Module, card: ModelCard) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(ModelError, match="cannot be written"):
        save_model(tmp_path / "a" / "b.safetensors", network, card)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    for name in ("gpu", "", "cuda:x"):
        with pytest.raises(ModelError, match="is not known: use auto"):
            choose_device(name)
    for name in ("cuda:99", "meta"):
        with pytest.raises(ModelError, match="This machine has no device"):
            choose_device(name)


def test_a_model_file_can_be_read_from_memory(file: Path) -> None:
    from_file, from_memory = load_model(file, "cpu"), load_model(file.read_bytes(), "cpu", "model 1 of mine")
    assert from_memory.card == from_file.card
    assert torch.equal(logits(from_memory.network), logits(from_file.network))


@pytest.mark.parametrize("size", [0, 100, -40])
def test_damaged_bytes_are_named(file: Path, size: int) -> None:
    with pytest.raises(ModelError, match="model 1 of mine"):
        load_model(file.read_bytes()[:size], "cpu", "model 1 of mine")


def test_a_loaded_model_is_written_as_it_was(file: Path) -> None:
    first = again = load_model(file, "cpu")
    for half, tolerance in ((False, 1e-4), (True, 2e-2)):  # and again after that
        again = load_model(model_bytes(unfold(again), again.card, half=half), "cpu")
        torch.testing.assert_close(
            logits(again.network), logits(first.network), atol=tolerance, rtol=tolerance
        )
