"""Labelled slices in memory, by patient: what a training run learns from."""

from __future__ import annotations

import os
import tomllib
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from napari_covseg.errors import ScanError
from napari_covseg.models.preparation import Preparation
from napari_covseg.scans import read_scan
from napari_covseg.scans.orientation import as_stored, canonical_axes, canonical_shape
from napari_covseg.scans.scan import Scan
from napari_covseg.scans.volumes import HEADERS, volume_suffix

OUTPUTS = ("lungs", "lesion")
"""The channels of a training mask, in this order."""
_SOURCE_KEYS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("patients", "scan", "patient", "lungs", "lesions"), str),
    **{"slices": list, "threshold": (int, float), "weight": (int, float), "negative": bool},
}


@dataclass
class TrainingSet:
    """Prepared slices with their masks.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, size, size)
    masks : ndarray of bool, shape (n, len(OUTPUTS), size, size)
    patients : ndarray of str, shape (n,)
        Whom a slice belongs to; splits go by this name and never by slice.
    folds : dict of str to list of str
        Test patients of each fixed fold, if the description names any.
    validation : dict of str to list of str
        Patients that choose the checkpoint, by fold.
    licence : str
        Of the data, for the card of a model that learned from it.
    negatives : frozenset of str
        Names of sources whose slices hold no lung.
    weights : dict of str to float
        How much more often than others the slices of a source are drawn, where not 1.
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.str_]
    folds: dict[str, list[str]] = field(default_factory=dict)
    validation: dict[str, list[str]] = field(default_factory=dict)
    licence: str = ""
    negatives: frozenset[str] = frozenset()
    weights: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def only(self, patients: set[str]) -> TrainingSet:
        """Return the slices of these patients."""
        keep = np.isin(self.patients, sorted(patients))
        return replace(self, images=self.images[keep], masks=self.masks[keep], patients=self.patients[keep])

    def resized(self, size: int) -> TrainingSet:
        """Return the slices at another height and width, in pixels; a mask is where most of it was."""
        if self.images.shape[1:] == (size, size):
            return self
        way = cv2.INTER_AREA if self.images.shape[1] > size else cv2.INTER_LINEAR
        images = np.zeros((len(self), size, size), np.uint8)
        for row, image in enumerate(self.images):
            images[row] = cv2.resize(image, (size, size), interpolation=way)
        masks = np.array([[shrink(mask, size) for mask in both] for both in self.masks], np.bool_)
        return replace(self, images=images, masks=masks.reshape(len(self), len(OUTPUTS), size, size))

    def checksum(self) -> int:
        """Return a number that changes with any slice, mask, weight or patient's name."""
        value = zlib.crc32("\n".join(self.patients.tolist()).encode())
        if self.weights:
            value = zlib.crc32(repr(sorted(self.weights.items())).encode(), value)
        for array in (self.images, self.masks):
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
        return value


def read_training_set(path: str | os.PathLike[str], preparation: Preparation | None = None) -> TrainingSet:
    """Read a folder of patients, or a TOML description of several sources.

    A folder holds one folder per patient with ``ct``, ``lungs`` and ``infection`` (or
    ``lesions``) inside, each with pictures of the same names. A description is a TOML file
    with ``[[source]]`` tables; see ``docs/training.md``.

    Parameters
    ----------
    path : path
    preparation : Preparation, optional
        How slices in HU are prepared; pictures are only scaled.

    Raises
    ------
    ScanError
        If the path holds no labelled patients, or a mask does not fit its slice.
    """
    path = Path(path)
    preparation = preparation or Preparation()
    if path.is_dir():
        description: dict[str, Any] = {"source": [{"patients": "."}]}
        root = path
    elif path.suffix == ".toml" and path.is_file():
        try:
            description = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ScanError(f"The training description {path} is not valid TOML: {error}.") from error
        where = os.path.expandvars(description.get("root", ""))
        if "$" in where:
            raise ScanError(
                f"The training description {path} needs the variable {where}: set it to the data's folder."
            )
        root = path.parent / where
    else:
        raise ScanError(f"{path} is neither a folder of patients nor a .toml description: give one of these.")
    return _assemble(description, root, preparation)


def _assemble(description: dict[str, Any], root: Path, preparation: Preparation) -> TrainingSet:
    images: list[npt.NDArray[np.uint8]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    patients: list[str] = []
    negative: dict[str, bool] = {}
    weights: dict[str, float] = {}
    sources = description.get("source", [])
    for source in sources if isinstance(sources, list) else [sources]:
        _check_source(source, root)
        for name, image, mask in _read_source(source, root, preparation):
            images.append(image)
            masks.append(mask)
            patients.append(name)
            if (weight := float(source.get("weight", 1))) != 1:
                weights[name] = weight
            if negative.setdefault(name, source.get("negative", False)) != source.get("negative", False):
                raise ScanError(f"{name} has labelled and negative slices: name the negative ones otherwise.")
    if not images:
        raise ScanError(
            f"{root} holds no labelled slices: each patient needs a folder with ct, lungs and infection."
        )
    return TrainingSet(
        np.stack(images),
        np.stack(masks),
        np.array(patients),
        folds=description.get("folds", {}),
        validation=description.get("validation", {}),
        licence=description.get("licence", ""),
        negatives=frozenset(name for name, without in negative.items() if without),
        weights=weights,
    )


def _check_source(source: object, root: Path) -> None:
    """Refuse a source that would be read otherwise than its author meant."""
    if not isinstance(source, dict) or ("patients" in source) == ("scan" in source):
        raise ScanError(f"Each [[source]] needs either patients or a scan; this one does not: {source}.")
    for key, value in source.items():
        kind = _SOURCE_KEYS.get(key)
        if kind is None or ("patients" in source and key not in ("patients", "weight", "negative")):
            raise ScanError(f"The source {source} has a setting that it cannot have, {key}: remove it.")
        if not isinstance(value, kind):
            raise ScanError(f"The source {source} has a setting that cannot be used: {key} = {value!r}.")
    if not 0 < source.get("weight", 1) < np.inf:
        raise ScanError(f"The source {source} has a weight that is not above 0: correct it.")
    if "patients" in source and not (root / source["patients"]).is_dir():
        raise ScanError(
            f"There is no folder {root / source['patients']}: correct the path in the description."
        )
    if "scan" in source and ("lungs" in source) == source.get("negative", False):
        raise ScanError(
            f"The scan {source['scan']} needs either lungs, a mask, or negative = true if it shows none."
        )
    if [type(z) for z in source.get("slices", [0, 0])] != [int, int]:
        raise ScanError(f"The slices of {source['scan']} are not [first, last]: {source['slices']}.")


def _read_source(source: dict[str, Any], root: Path, preparation: Preparation) -> list[tuple[str, Any, Any]]:
    if "patients" in source:
        folders = sorted(p for p in (root / source["patients"]).iterdir() if (p / "ct").is_dir())
        return [(folder.name, *pair) for folder in folders for pair in _read_pictures(folder, preparation)]
    scan = read_scan(root / source["scan"])
    name = source.get("patient", scan.name)
    truths = {
        channel: _read_mask(root / source[kind], scan, source.get("threshold", 0))
        for channel, kind in enumerate(("lungs", "lesions"))
        if kind in source
    }
    first, last = source.get("slices", [0, len(scan.voxels) - 1])
    if not 0 <= first <= last < len(scan.voxels):
        raise ScanError(
            f"{root / source['scan']} has no slices {first} to {last}: it has 0 to {len(scan.voxels) - 1}."
        )
    rows = []
    for z in range(first, last + 1):
        image = preparation(scan.voxels[z], scan.intensity)
        mask = np.zeros((len(OUTPUTS), *image.shape), np.bool_)
        for channel, truth in truths.items():
            mask[channel] = shrink(truth[z], preparation.size)
        rows.append((name, image, mask))
    return rows


def _read_pictures(folder: Path, preparation: Preparation) -> list[tuple[Any, Any]]:
    lesions = "infection" if (folder / "infection").is_dir() else "lesions"
    rows = []
    for file in sorted((folder / "ct").iterdir()):
        picture = _grey(file)
        image = preparation(picture, "grey")
        mask = np.zeros((len(OUTPUTS), *image.shape), np.bool_)
        for channel, kind in enumerate(("lungs", lesions)):
            truth = folder / kind / file.name
            if not truth.is_file():
                raise ScanError(
                    f"The mask {truth} is missing: each slice in {folder / 'ct'} needs one of the same name."
                )
            labelled = _grey(truth)
            if labelled.shape != picture.shape:
                raise ScanError(
                    f"The mask {truth} has the shape {labelled.shape}, its slice {picture.shape}: "
                    "they must be equal."
                )
            mask[channel] = shrink(labelled > 0, preparation.size)
        rows.append((image, mask))
    return rows


def _grey(file: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise ScanError(
            f"{file} cannot be read as a picture ({error}): remove it or save it again."
        ) from error


def _read_mask(path: Path, scan: Scan, threshold: float) -> npt.NDArray[np.bool_]:
    """Read a mask by its own values: `read_scan` would take them for grey and stretch them."""
    suffix = volume_suffix(path)
    if not suffix or not path.is_file():
        raise ScanError(f"The mask {path} does not exist or is no NIfTI, NRRD or MHA file: correct its path.")
    stored = HEADERS[suffix](path)
    axes, flips = canonical_axes(stored.affine)
    mask = np.zeros(canonical_shape(stored.shape, axes), np.bool_)
    for values, out in zip(stored.slices(), as_stored(mask, axes, flips), strict=True):
        np.greater(values, threshold, out=out)
    if mask.shape != scan.voxels.shape:
        raise ScanError(
            f"The mask {path} has the shape {mask.shape}, its scan {scan.voxels.shape}: they must be equal."
        )
    return mask


def shrink(mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    """Square a mask as a slice is prepared, and resize it; a pixel is set if most of it was."""
    height, width = mask.shape
    side = max(height, width)
    square = np.zeros((side, side), np.float32)
    square[:height, :width] = mask
    if side == size:
        return square > 0.5
    way = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(np.asarray(cv2.resize(square, (size, size), interpolation=way)) > 0.5)
