"""What those networks have in common that name what a whole slice shows, and weights from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_covseg.errors import ModelError
from napari_covseg.networks.blocks import by_name

_COUNT = "num_batches_tracked"
_NAMED = 3  # names that an error lists before it counts the others


class Classifier(nn.Module):
    """A network that gives a slice one logit for each of its outputs: classes, or findings.

    In two steps, of which the first is the same each time for a body that no longer learns: `features`
    of the slice, and `classify`, the logits made of them.

    Parameters
    ----------
    outputs : sequence of str
        One name per logit.

    Attributes
    ----------
    last_layer : str
        Name of the layer that gives the logits, the only one whose shape depends on their number.
    heat_map_layer : str
        Name of the last layer that has a map, which Grad-CAM weighs.
    size : int, optional
        The only height and width that it takes; None if it takes any of at least `smallest`.
    smallest : int
    ignored : tuple of str
        How names of tensors begin that a file may have and the network has no use for.
    """

    last_layer: str
    heat_map_layer: str
    size: int | None = None
    smallest: int
    ignored: tuple[str, ...] = ()

    def __init__(self, outputs: Sequence[str]) -> None:
        super().__init__()
        self.outputs = tuple(outputs)

    def takes(self, side: int) -> bool:
        """Whether slices can have this height or width."""
        return side >= self.smallest and self.size in (None, side)

    def features(self, slices: Tensor) -> Tensor:
        """Return what `classify` takes, shape (N, F), of prepared slices, (N, 1, H, W) in [0, 1]."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """Return logits, shape (N, len(outputs)), of `features`."""
        raise NotImplementedError

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        """Compute logits.

        Parameters
        ----------
        slices : Tensor, shape (N, 1, H, W)
            Prepared slices in [0, 1]. A normalisation that a body expects is its own first step.

        Returns
        -------
        dict of str to Tensor
            One tensor of shape (N, 1) per name in `outputs`.
        """
        return by_name(self.classify(self.features(slices)), self.outputs)


def load_weights(network: Classifier, path: str | os.PathLike[str]) -> bool:
    """Give a network the weights of a state dict in a file, in place.

    Every tensor has to land, in its own shape; only what the network says it has no use for (the auxiliary
    head of Inception-v3) is dropped, and counts of batches may be missing, which older files do not have.
    Where the file has another number of classes, the last layer stays as it is: random in a new network. With
    the same number it is taken, whatever the classes were.

    Parameters
    ----------
    network : Classifier
    path : path
        What ``torch.save(network.state_dict(), path)`` wrote, for example of a network of torchvision, or
        safetensors. Nothing in it is run.

    Returns
    -------
    bool
        Whether the last layer was taken too.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or of another network; the weights are then as they were.
    """
    path = Path(path)
    stored = {name: value for name, value in _read(path).items() if not name.startswith(network.ignored)}
    own = network.state_dict()
    last = [name for name in own if name.startswith(f"{network.last_layer}.")]
    taken = not _of_other_classes([(stored[name], own[name]) for name in last if name in stored])
    needed = {name: value for name, value in own.items() if taken or name not in last}
    given = {name: value for name, value in stored.items() if taken or name not in last}
    missing = [name for name in needed if name not in given and not name.endswith(_COUNT)]
    unknown = [name for name in given if name not in needed]
    others = [
        f"{name} {tuple(given[name].shape)} for {tuple(value.shape)}"
        for name, value in needed.items()
        if name in given and given[name].shape != value.shape
    ]
    told = {"missing": missing, "not known": unknown, "of another shape": others}
    if wrong := "; ".join(f"{what} {_some(names)}" for what, names in told.items() if names):
        raise ModelError(
            f"The weights in {path} are not those of this network ({wrong}): choose a file of the same one."
        )
    network.load_state_dict({**own, **given})
    return taken


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"The file of weights {path} does not exist: check the path.")
    try:
        if path.suffix == ".safetensors":
            stored = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise what they like on a damaged file, at length
        raise ModelError(_unreadable(path)) from error
    if not isinstance(stored, Mapping) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise ModelError(_unreadable(path))
    return {str(name): value for name, value in stored.items()}


def _unreadable(path: Path) -> str:
    return (
        f"{path} is damaged or holds no weights: choose a .safetensors file, or what PyTorch saved of a "
        "network's state_dict()."
    )


def _of_other_classes(pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether the tensors of a last layer, (given, own), differ in the number of classes, and only there."""
    counts = {given.shape[:1] for given, _ in pairs}
    return len(counts) == 1 and all(
        given.shape[:1] != own.shape[:1] and given.shape[1:] == own.shape[1:] and given.dim() == own.dim()
        for given, own in pairs
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
