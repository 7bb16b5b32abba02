"""Labelled slices in memory, and what makes them fit a network.

A slice teaches what is known of it and nothing else: what is unknown of a pixel counts neither for nor
against an output.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.labels import UNION, joins
from napari_covseg.models.preparation import Placement, Preparation

PLAIN = ("lungs", UNION)
"""The outputs of a network that tells no findings apart."""
UNKNOWN = 255
"""Of a mask: nobody knows what this pixel is."""
KINDS = ("HU", "grey", "equalised")
"""What the values of a slice are: HU, a picture's grey, or a picture's after CLAHE."""

SliceId = tuple[str, int]
"""Id of the case, and z."""


@dataclass(frozen=True, eq=False)
class LabelledSlices:
    """Slices with what is known of each pixel.

    Attributes
    ----------
    images : ndarray of uint8 or int16, shape (n, size, size)
        Prepared slices; or, read without a preparation, slices as they were (HU, or 0-255), squared
        and resized.
    masks : ndarray of uint8, bool or float, shape (n, len(outputs), size, size)
        1 labelled, 0 not, `UNKNOWN` unknown; or, of float, the probabilities of a model.
    patients : ndarray of str, shape (n,)
        Whom a slice belongs to: a patient, by whom splits go and never by slice, or a case of a workspace.
    outputs : tuple of str
        The channels of the masks.
    numbers : ndarray of int, shape (n,), optional
        Of each slice in its case.
    sources : ndarray of str, shape (n,), optional
        Which source a slice is from; all of one by default.
    kinds : ndarray of str, shape (n,), optional
        Of `KINDS`; by default all are prepared.
    folds : dict of str to list of str
        Test patients of each fixed fold, if the description names any.
    validation : dict of str to list of str
        Patients that choose the checkpoint, by fold.
    licence : str
        Of the data, for the card of a model that learned from it.
    licences : dict of str to str
        Of each source.
    negatives : frozenset of str
        Names of patients whose slices hold no lung.
    weights : dict of str to float
        How much more often than others the slices of a patient, or of a source, are drawn, where not 1.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    """

    images: npt.NDArray[Any]
    masks: npt.NDArray[Any]
    patients: npt.NDArray[np.str_]
    outputs: tuple[str, ...] = PLAIN
    sources: npt.NDArray[np.str_] | None = None
    kinds: npt.NDArray[np.str_] | None = None
    folds: dict[str, list[str]] = field(default_factory=dict)
    validation: dict[str, list[str]] = field(default_factory=dict)
    licence: str = ""
    licences: dict[str, str] = field(default_factory=dict)
    negatives: frozenset[str] = frozenset()
    weights: dict[str, float] = field(default_factory=dict)
    numbers: npt.NDArray[np.int_] | None = None

    def __post_init__(self) -> None:
        count, *grid = self.images.shape
        if self.masks.shape != (count, len(self.outputs), *grid) or len(self.patients) != count:
            raise ValueError(
                f"{count} slices of {grid} with masks {self.masks.shape} of {len(self.outputs)} outputs and "
                f"{len(self.patients)} patients"
            )

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, keep: npt.NDArray[Any]) -> LabelledSlices:
        """Return the slices at these rows, or where a mask is true."""
        parts = ("images", "masks", "patients", "sources", "kinds", "numbers")
        there: dict[str, Any] = {
            name: part[keep] for name in parts if (part := getattr(self, name)) is not None
        }
        return replace(self, **there)

    @property
    def ids(self) -> tuple[SliceId, ...]:
        """Case and number of each slice."""
        numbers = range(len(self)) if self.numbers is None else self.numbers.tolist()
        return tuple(zip(self.patients.tolist(), numbers, strict=True))

    def only(self, patients: set[str]) -> LabelledSlices:
        """Return the slices of these patients."""
        return self.rows(np.isin(self.patients, sorted(patients)))

    def teaching(self, outputs: Sequence[str]) -> LabelledSlices:
        """Return the slices with the channels that teach these outputs, which must be among its own."""
        channels = taught(outputs)
        masks = self.masks[:, [self.outputs.index(name) for name in channels]]
        return replace(self, masks=masks, outputs=channels)

    def resized(self, size: int) -> LabelledSlices:
        """Return the slices at another height and width, in pixels; a mask is what most of it was."""
        if self.images.shape[1:] == (size, size):
            return self
        images = np.zeros((len(self), size, size), self.images.dtype)
        masks = np.zeros((*self.masks.shape[:2], size, size), self.masks.dtype)
        for row, image in enumerate(self.images):
            images[row] = resize(image, size)
            for channel, mask in enumerate(self.masks[row]):
                masks[row, channel] = shrink(mask, size)
        return replace(self, images=images, masks=masks)

    def prepared(self, preparation: Preparation) -> LabelledSlices:
        """Return slices that were read as they are, whole, as a network will see them."""
        if self.kinds is None:
            return self.resized(preparation.size)
        images = np.zeros((len(self), preparation.size, preparation.size), np.uint8)
        for row, (image, kind) in enumerate(zip(self.images, self.kinds, strict=True)):
            images[row] = prepare(preparation, image, str(kind))
        return replace(self, images=images, kinds=None, masks=self.resized(preparation.size).masks)

    @classmethod
    def joined(cls, parts: Iterable[LabelledSlices]) -> LabelledSlices | None:
        """Return the images, masks and ids of all parts, whose outputs are the same; None without a slice."""
        some = [part for part in parts if len(part)]
        if not some:
            return None
        ids = [id_ for part in some for id_ in part.ids]
        return cls(
            np.concatenate([part.images for part in some]),
            np.concatenate([part.masks for part in some]),
            np.array([case for case, _ in ids]),
            some[0].outputs,
            numbers=np.array([number for _, number in ids]),
        )

    def checksum(self) -> int:
        """Return a number that changes with any slice, mask, weight or name."""
        words = [*self.patients.tolist(), *(self.sources if self.sources is not None else ())]
        words += [*(self.kinds if self.kinds is not None else ())]
        words += [] if self.outputs == PLAIN else self.outputs
        value = zlib.crc32("\n".join(map(str, words)).encode())
        if self.weights:
            value = zlib.crc32(repr(sorted(self.weights.items())).encode(), value)
        for array in (self.images, self.masks):
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
        return value


def taught(outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the channels that teach these outputs: with the union of those that are told apart."""
    return (*outputs, UNION) if joins(tuple(outputs)) else tuple(outputs)


def prepare(
    preparation: Preparation, values: npt.NDArray[Any], kind: str, placement: Placement | None = None
) -> npt.NDArray[np.uint8]:
    """Prepare a slice (y, x) of one of `KINDS`, or the part of it that a placement cuts out."""
    return preparation(values, "HU" if kind == "HU" else "grey", placement, equalised=kind == "equalised")


def squared(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Square a slice (y, x) as a preparation does: its smallest value below and to the right."""
    side = max(values.shape)
    square = np.full((side, side), values.min(), np.float32)
    square[: values.shape[0], : values.shape[1]] = values
    return square


def resize(values: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Resize a square slice, in its own dtype."""
    if values.shape == (size, size):
        return values
    finer = values.shape[0] < size
    method = cv2.INTER_LINEAR if finer else cv2.INTER_AREA
    resized = np.asarray(cv2.resize(values.astype(np.float32), (size, size), interpolation=method))
    return resized.astype(np.uint8) if values.dtype == np.uint8 else resized.round().astype(values.dtype)


def shrink(mask: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Square a mask as a slice is prepared, and resize it; a pixel is what most of it was.

    Parameters
    ----------
    mask : ndarray of bool, or of uint8 as in `LabelledSlices.masks`, shape (y, x)
        What is added to square it is not labelled, or unknown where all of it is.
    size : int
    """
    height, width = mask.shape
    side = max(height, width)
    if side == size == height == width:
        return mask
    unknown = mask == UNKNOWN if mask.dtype == np.uint8 else np.zeros(mask.shape, np.bool_)
    if unknown.all():
        return np.full((size, size), UNKNOWN, np.uint8)
    parts = [_most(part, size, side) for part in ((mask > 0) & ~unknown, unknown)]
    if mask.dtype == np.bool_:
        return parts[0]
    return np.where(parts[1], UNKNOWN, parts[0]).astype(np.uint8)


def _most(mask: npt.NDArray[np.bool_], size: int, side: int) -> npt.NDArray[np.bool_]:
    if not mask.any():
        return np.zeros((size, size), np.bool_)
    square = np.zeros((side, side), np.float32)
    square[: mask.shape[0], : mask.shape[1]] = mask
    if side == size:
        return np.asarray(square > 0.5)
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(np.asarray(cv2.resize(square, (size, size), interpolation=method)) > 0.5)
