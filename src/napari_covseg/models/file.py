"""Model files in and out: safetensors with the card in the header, never pickle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_covseg.errors import ModelError
from napari_covseg.files import write_bytes
from napari_covseg.models.card import ModelCard, card_of, read_card
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network
from napari_covseg.networks.classifier import Classifier


@dataclass(frozen=True, eq=False)
class Model:
    """A network in evaluation mode on its device, with its card and preparation."""

    network: nn.Module
    card: ModelCard
    preparation: Preparation
    device: torch.device


def choose_device(device: str = "auto") -> torch.device:
    """Return the device to run on; ``"auto"`` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    ModelError
        If the device is not known, or this machine does not have it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelError(
            f"The device {device!r} is not known: use auto, cpu, cuda, cuda:1 or mps."
        ) from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (chosen.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }.get(chosen.type, False)
    if not there:
        raise ModelError(f"This machine has no device {device!r}: use auto or cpu.")
    return chosen


def save_model(
    path: str | os.PathLike[str], network: nn.Module, card: ModelCard, *, half: bool = True
) -> None:
    """Write a model file; the file of this name, if any, is replaced only when all is written.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors``.
    network : Module
        As built from ``card.network``.
    card : ModelCard
    half : bool
        Store floating-point weights as float16; they are used as float32.

    Raises
    ------
    ModelError
        If the file cannot be written.
    """
    path = Path(path)
    data = model_bytes(network, card, half=half)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)  # save_file's is for the owner only
    except OSError as error:
        raise ModelError(
            f"The model file {path} cannot be written ({error}): choose another folder."
        ) from error


def model_bytes(network: nn.Module, card: ModelCard, *, half: bool = True) -> bytes:
    """Return what `save_model` writes."""
    tensors = {
        name: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    return save(tensors, metadata={"card": card.to_json()})


def load_network(source: str | os.PathLike[str] | bytes, name: str = "") -> tuple[nn.Module, ModelCard]:
    """Read a model file as it was trained, float32, in evaluation mode on the CPU.

    Parameters
    ----------
    source : path or bytes
        A file, or its content.
    name : str
        What errors call it; a file's path by default.

    Raises
    ------
    ModelError
        If the file is damaged, or its weights do not fit the network that its card names.
    """
    name = _called(source, name)
    card = card_of(source, name) if isinstance(source, bytes) else read_card(source)
    network = build_network(card.network["name"], card.outputs, card.network.get("settings", {}))
    try:
        stored = load(source) if isinstance(source, bytes) else load_file(source)
        tensors = {k: v.float() if v.is_floating_point() else v for k, v in stored.items()}
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(
            f"The weights in {name} are damaged or do not fit its card: get the file again."
        ) from error
    return network.eval(), card


def load_model(source: str | os.PathLike[str] | bytes, device: str = "auto", name: str = "") -> Model:
    """Load a model ready to predict: normalisation folded in, channels last, warmed up.

    Parameters
    ----------
    source, name
        As for `load_network`.
    device : str

    Raises
    ------
    ModelError
        If the file cannot be used, or the device is not there.
    """
    network, card = load_network(source, name)
    where = choose_device(device)
    _fold_normalisation(network)
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    preparation = Preparation.from_card(card.preparation)
    if isinstance(network, Classifier) and not network.takes(preparation.size):
        raise ModelError(
            f"The card of {_called(source, name)} prepares slices of {preparation.size} pixels, which its "
            "network does not take: get the file again."
        )
    with (
        torch.inference_mode()
    ):  # the first pass builds the convolution plans: not on the reader's first slice
        network(torch.zeros(1, 1, preparation.size, preparation.size, device=where))
    return Model(network, card, preparation, where)


def _called(source: str | os.PathLike[str] | bytes, name: str) -> str:
    return name or ("the model" if isinstance(source, bytes) else str(source))


def unfold(model: Model) -> nn.Module:
    """Return the network of a loaded model as `save_model` wants it, on the CPU.

    Each normalisation that was folded into its convolution becomes one that only adds the
    convolution's bias: the outputs are the same.
    """
    card = model.card
    network = build_network(card.network["name"], card.outputs, card.network.get("settings", {})).eval()
    folded = {name: value.detach().cpu() for name, value in model.network.state_dict().items()}
    state = network.state_dict()
    for first, convolution, second, normalisation in _normalised(network):
        bias = folded.pop(f"{first}.bias")
        if convolution.bias is not None:
            state[f"{first}.bias"].zero_()
        plain = {"weight": 1.0, "running_mean": 0.0, "running_var": 1 - normalisation.eps}
        for key, value in plain.items():
            state[f"{second}.{key}"].fill_(value)
        state[f"{second}.bias"].copy_(bias)
    network.load_state_dict({**state, **folded})
    return network


def _fold_normalisation(network: nn.Module) -> None:
    """Merge each batch normalisation into the convolution before it: a quarter less time on a CPU."""
    for first, convolution, second, normalisation in list(_normalised(network)):
        network.set_submodule(first, fuse_conv_bn_eval(convolution, normalisation))
        network.set_submodule(second, nn.Identity())


def _normalised(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d, str, nn.BatchNorm2d]]:
    """Yield each convolution that a batch normalisation follows, and that, with their names."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            for (first, convolution), (second, normalisation) in pairwise(module.named_children()):
                if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                    yield f"{name}.{first}", convolution, f"{name}.{second}", normalisation
