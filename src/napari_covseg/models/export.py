"""A network in a file that other programs run: ONNX, or PyTorch's own export, checked against PyTorch."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from napari_covseg.errors import ModelError
from napari_covseg.files import write_bytes
from napari_covseg.networks.classifier import Classifier

Format = Literal["onnx", "torch"]
FORMATS: tuple[Format, ...] = get_args(Format)
LARGEST_DIFFERENCE = 1e-3
CHECKED = ((1, 128, 128), (2, 97, 131))
"""Batch, height and width of the slices that the check is made with."""
_EXAMPLE = (2, 96, 112)  # no side of the smallest map is 1, which would be taken for a constant
_ONNX = ("onnx", "onnxruntime", "onnxscript")

_Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : Path
    format : {"onnx", "torch"}
    outputs : tuple of str
        Names of the logits, in the file's order.
    max_difference : float
        Largest difference of a logit from PyTorch's, over the slices of `CHECKED`; over slices of the size
        that the network takes if it takes but one.
    """

    path: Path
    format: Format
    outputs: tuple[str, ...]
    max_difference: float


class _Ordered(nn.Module):
    """A network with its logits in a tuple: an exported graph knows no names of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, slices: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(slices).values())


def export_network(
    network: nn.Module, path: str | os.PathLike[str], form: Format = "onnx", card: str = ""
) -> Exported:
    """Write a network for other programs; an older file is replaced only when the new one is right.

    The file takes ``slices``, float32 of shape (batch, 1, height, width) in [0, 1], of any batch,
    height and width (or the one that the network takes), and gives a tensor of logits for each output:
    (batch, 1, height, width), or (batch, 1) of a network that names what whole slices show.

    Parameters
    ----------
    network : Module
        From `networks.build.build_network` or `models.file.load_network`.
    path : path
    form : {"onnx", "torch"}
        ``"onnx"`` needs the extra ``export``; ``"torch"`` is read by `torch.export.load`.
    card : str
        JSON that goes with it: in the ONNX file's metadata as ``card``, or in PyTorch's
        archive as ``card.json``.

    Raises
    ------
    ModelError
        If the packages for ONNX are not there, the file cannot be written, or what it computes
        differs from PyTorch by more than `LARGEST_DIFFERENCE`.
    """
    path = Path(path)
    if form == "onnx":
        check_onnx()
    network = copy.deepcopy(network).cpu().float().eval()
    only = network.size if isinstance(network, Classifier) else None
    with torch.no_grad(), _quiet():
        outputs = tuple(network(torch.zeros(_shape(_EXAMPLE, only))))
        free = (0, 2, 3) if only is None else (0,)
        program = torch.export.export(
            _Ordered(network),
            (torch.rand(_shape(_EXAMPLE, only)),),
            dynamic_shapes=(dict.fromkeys(free, Dim.DYNAMIC),),
        )
        data, run = _onnx(program, outputs, card) if form == "onnx" else _torch(program, card)
        difference = _difference(network, run, only)
    if not difference <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"The exported network differs from PyTorch by {difference:.2g}, more than "
            f"{LARGEST_DIFFERENCE:g}, so {path} was not written: update PyTorch, or use the other format."
        )
    _write(path, data)
    return Exported(path, form, outputs, difference)


def check_onnx() -> None:
    """Raise ModelError if the packages that write and check ONNX files are not there."""
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"Exporting to ONNX needs {', '.join(missing)}, not installed here: "
            "run `pip install 'napari-covseg[export]'`, or choose --format torch."
        )


def _shape(size: tuple[int, int, int], only: int | None) -> tuple[int, int, int, int]:
    batch, height, width = size
    return batch, 1, only or height, only or width


def _onnx(program: ExportedProgram, outputs: Sequence[str], card: str) -> tuple[bytes, _Run]:
    """Return the ONNX file, and what runs it."""
    import onnxruntime

    exported = torch.onnx.export(
        program, input_names=["slices"], output_names=list(outputs), dynamo=True, verbose=False
    )
    if exported is None:
        raise RuntimeError("PyTorch exported nothing")
    exported.model.metadata_props["card"] = card
    data: bytes = exported.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(slices: Tensor) -> list[Tensor]:
        answers = session.run(list(outputs), {"slices": slices.numpy()})
        return [torch.from_numpy(np.asarray(answer)) for answer in answers]

    return data, run


def _torch(program: ExportedProgram, card: str) -> tuple[bytes, _Run]:
    """Return PyTorch's archive, and what runs it once it is read back."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"card.json": card})
    data = file.getvalue()
    module = torch.export.load(io.BytesIO(data)).module()
    return data, lambda slices: module(slices)


def _difference(network: nn.Module, run: _Run, only: int | None) -> float:
    """Return the largest absolute difference of a logit; NaN if one of them is no number."""
    random = torch.Generator().manual_seed(0)
    largest = []
    for size in CHECKED:
        slices = torch.rand(_shape(size, only), generator=random)
        expected = network(slices).values()
        largest += [(a - b).abs().max() for a, b in zip(expected, run(slices), strict=True)]
    return float(torch.stack(largest).max())


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself, and about packages not needed, off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
