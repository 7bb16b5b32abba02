"""Labelled slices from the disk, by patient and source: what a training run learns from."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from napari_covseg.errors import ScanError
from napari_covseg.labels import OUTPUTS, UNION, UNITED, lesion
from napari_covseg.learn.slices import (
    KINDS,
    PLAIN,
    UNKNOWN,
    LabelledSlices,
    prepare,
    resize,
    shrink,
    squared,
    taught,
)
from napari_covseg.models.preparation import Preparation
from napari_covseg.scans import Scan, read_mask, read_scan

Mask = npt.NDArray[np.uint8]


def read_training_set(
    path: str | os.PathLike[str],
    preparation: Preparation | None = None,
    outputs: Sequence[str] = PLAIN,
    *,
    size: int | None = None,
) -> LabelledSlices:
    """Read a folder of patients, or a TOML description of several sources.

    A folder holds one folder per patient with ``ct``, ``lungs`` and ``infection`` (or
    ``lesions``) inside, each with pictures of the same names. A description is a TOML file
    with ``[[source]]`` tables; see ``docs/training.md``.

    Parameters
    ----------
    path : path
    preparation : Preparation, optional
        How slices are prepared; the default one if neither this nor `size` is given.
    outputs : sequence of str
        Of `labels.OUTPUTS`: what a network is to be taught. Where it tells ground-glass and
        consolidation apart, their union, "lesion", is read as well, after them.
    size : int, optional
        Read the slices as they are instead, at this height and width: for guises that are put on
        while training, see `learn.augment`.

    Raises
    ------
    ScanError
        If the path holds no labelled patients, or a mask does not fit its slice.
    """
    path = Path(path)
    if path.is_dir():
        description: dict[str, Any] = {"source": [{"patients": "."}]}
        root = path
    elif path.suffix == ".toml" and path.is_file():
        try:
            description = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ScanError(f"The training description {path} is not valid TOML: {error}.") from error
        root = path.parent
    else:
        raise ScanError(f"{path} is neither a folder of patients nor a .toml description: give one of these.")
    if unknown := set(outputs) - set(OUTPUTS):
        raise ScanError(f"There is no output {', '.join(sorted(unknown))}: known are {', '.join(OUTPUTS)}.")
    return _assemble(description, root, preparation or Preparation(), taught(outputs), size)


@dataclass
class _Slice:
    """One slice as a source has it.

    Attributes
    ----------
    values : ndarray, shape (y, x)
        HU, or grey from 0 to 255.
    kind : str
        Of `KINDS`.
    lungs : ndarray of uint8, shape (y, x), or None
        Not 0 in the lungs; None where that is unknown.
    lesions : ndarray of uint8, shape (y, x)
        Values of `labels.LESIONS`, `UNKNOWN` where no label is known.
    knows : frozenset of str
        Outputs whose absence is known wherever they are not labelled.
    """

    values: npt.NDArray[Any]
    kind: str
    lungs: Mask | None
    lesions: Mask
    knows: frozenset[str]

    def channel(self, name: str) -> Mask:
        """Return the mask of one output, see `LabelledSlices.masks`."""
        if name == "lungs":
            if self.lungs is not None:
                return (self.lungs > 0).astype(np.uint8)
            return np.full(self.values.shape[:2], UNKNOWN, np.uint8)
        value = lesion(name).value
        united = [lesion(part).value for part in UNITED]
        # a voxel has one label, so that the others are absent there even where nobody looked for them
        labelled = (self.lesions != 0) & (self.lesions != UNKNOWN)
        if name == "pleural effusion" and self.lungs is not None:
            labelled |= self.lungs > 0
        if name == UNION:
            here = np.isin(self.lesions, [value, *united])
            known = {name} <= self.knows or set(UNITED) <= self.knows
            unclear = np.zeros_like(here)
        else:
            here = self.lesions == value
            known = name in self.knows or (name in UNITED and UNION in self.knows)
            # a lesion that nobody has told apart may be either
            unclear = (self.lesions == lesion(UNION).value) & (name in UNITED)
        out = np.where(here, 1, 0 if known else UNKNOWN).astype(np.uint8)
        out[labelled & ~here] = 0
        out[unclear | (self.lesions == UNKNOWN)] = UNKNOWN
        return out


def _assemble(
    description: dict[str, Any],
    root: Path,
    preparation: Preparation,
    channels: tuple[str, ...],
    size: int | None,
) -> LabelledSlices:
    rows: list[tuple[str, str, str]] = []
    images: list[npt.NDArray[Any]] = []
    masks: list[Mask] = []
    negative: dict[str, bool] = {}
    weights: dict[str, float] = {}
    licences: dict[str, str] = {}
    here, root = root, root / expanded(description.get("root", ""))
    sources = description.get("source", [])
    for source in sources if isinstance(sources, list) else [sources]:
        kind = _kind_of(source)
        folder = here / expanded(source["root"]) if "root" in source else root
        _check_source(source, folder)
        label = source.get("name", source[kind])
        licences.setdefault(label, source.get("licence", "not stated"))
        for name, slice_ in _READERS[kind](source, folder):
            if size is None:
                images.append(prepare(preparation, slice_.values, slice_.kind))
            else:
                images.append(resize(squared(slice_.values), size))
            side = size or preparation.size
            masks.append(np.stack([shrink(slice_.channel(channel), side) for channel in channels]))
            rows.append((name, label, slice_.kind))
            if (weight := float(source.get("weight", 1))) != 1:
                weights[label if "name" in source else name] = weight
            if negative.setdefault(name, source.get("negative", False)) != source.get("negative", False):
                raise ScanError(f"{name} has labelled and negative slices: name the negative ones otherwise.")
    if not images:
        raise ScanError(
            f"{root} holds no labelled slices: each patient needs a folder with ct, lungs and infection."
        )
    patients, named, kinds = (np.array(column) for column in zip(*rows, strict=True))
    return LabelledSlices(
        np.stack(images) if size is None else np.stack(images).astype(np.int16),
        np.stack(masks),
        patients,
        channels,
        sources=named,
        kinds=None if size is None else kinds,
        folds=description.get("folds", {}),
        validation=description.get("validation", {}),
        licence=description.get("licence", ""),
        licences=licences,
        negatives=frozenset(name for name, without in negative.items() if without),
        weights=weights,
    )


# What a [[source]] may say, by where its slices come from. See docs/training.md.
_COMMON: dict[str, type | tuple[type, ...]] = {
    "name": str, "weight": (int, float), "root": str, "licence": str,
}  # fmt: skip
_SETTINGS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "patients": {"patients": str, "negative": bool, "kind": str, "partial": bool, "left_out": list},
    "pictures": {"pictures": str, "masks": str, "values": dict, "patient": str, "numbers": list, "kind": str},
    "scan": {
        **dict.fromkeys(("scan", "patient", "lungs", "lesions", "effusion"), str),
        **{"slices": list, "threshold": (int, float), "negative": bool, "free_of": list, "unlabelled": list},
    },
    "volumes": {"volumes": str},
}


def _kind_of(source: object) -> str:
    if isinstance(source, dict) and "labels" in source:
        raise ScanError(
            f"The source {source['labels']} holds pictures that are labelled as a whole: train on it with "
            "--task recognition."
        )
    kinds = [kind for kind in _SETTINGS if isinstance(source, dict) and kind in source]
    if len(kinds) != 1:
        raise ScanError(
            f"Each [[source]] needs one of {', '.join(_SETTINGS)}; this one does not have it: {source}."
        )
    return kinds[0]


def _check_source(source: dict[str, Any], root: Path) -> None:
    """Refuse a source that would be read otherwise than its author meant."""
    known = _COMMON | _SETTINGS[_kind_of(source)]
    for key, value in source.items():
        if key not in known:
            raise ScanError(f"The source {source} has a setting that it cannot have, {key}: remove it.")
        if not isinstance(value, known[key]):
            raise ScanError(f"The source {source} has a setting that cannot be used: {key} = {value!r}.")
    if not 0 < source.get("weight", 1) < np.inf:
        raise ScanError(f"The source {source} has a weight that is not above 0: correct it.")
    if re.search(r"\bND\b|no.?deriv", source.get("licence", ""), re.IGNORECASE):
        raise ScanError(
            f"The source {source} has a licence that allows no derivatives, and weights are one: leave it "
            "out."
        )
    if source.get("kind", "grey") not in KINDS[1:]:
        raise ScanError(f"The source {source} has a kind that is not grey or equalised: correct it.")
    for key in ("patients", "pictures", "masks", "volumes"):
        if key in source and not (root / source[key]).is_dir():
            raise ScanError(f"There is no folder {root / source[key]}: correct the path in the description.")
    for key in ("slices", "numbers"):
        if [type(z) for z in source.get(key, [0, 0])] != [int, int]:
            raise ScanError(f"The {key} of {source} are not [first, last]: {source[key]}.")
    if "scan" in source:
        truths = {"lungs", "lesions", "effusion", "free_of"} & source.keys()
        if bool(truths) == source.get("negative", False):
            raise ScanError(
                f"The scan {source['scan']} needs either a mask (lungs, lesions, effusion) or free_of, or "
                "negative = true if it shows no lung."
            )
        _named(source.get("free_of", []), source)
    if "pictures" in source:
        if "masks" not in source or not source.get("values"):
            raise ScanError(f"The pictures of {source} need masks and the values that these have.")
        _named(source["values"].values(), source)


def _named(names: Any, source: object) -> None:
    if unknown := [name for name in names if name not in OUTPUTS[1:]]:
        raise ScanError(
            f"The source {source} names findings that are not known: {', '.join(map(str, unknown))}."
        )


def _read_patients(source: dict[str, Any], root: Path) -> Iterator[tuple[str, _Slice]]:
    folders = sorted(p for p in (root / source["patients"]).iterdir() if (p / "ct").is_dir())
    for folder in folders:
        if folder.name not in source.get("left_out", ()):
            yield from ((folder.name, slice_) for slice_ in _read_pictures(folder, source))


def _read_pictures(folder: Path, source: dict[str, Any]) -> Iterator[_Slice]:
    kind, partial = source.get("kind", "grey"), source.get("partial", False)
    lesions = "infection" if (folder / "infection").is_dir() else "lesions"
    for file in sorted((folder / "ct").iterdir()):
        picture = grey_picture(file)
        found: dict[str, Mask | None] = {}
        for part in ("lungs", lesions):
            near = [folder / part / file.name, (folder / part / file.stem).with_suffix(".png")]
            truth = next((path for path in near if path.is_file()), None)
            if truth is None and not partial:
                raise ScanError(
                    f"The mask {near[0]} is missing: each slice in {folder / 'ct'} needs one of the same "
                    "name."
                )
            found[part] = None if truth is None else (grey_picture(truth) > 0).astype(np.uint8)
            if truth is not None and found[part].shape != picture.shape:  # type: ignore[union-attr]
                raise ScanError(
                    f"The mask {truth} has the shape {found[part].shape}, "  # type: ignore[union-attr]
                    f"its slice {picture.shape}: they must be equal."
                )
        lungs, lesion_mask = found["lungs"], found[lesions]
        if lungs is None and lesion_mask is None:
            continue  # nothing is known of this slice
        known = frozenset([UNION] if lesion_mask is not None else [])
        if source.get("negative", False):
            known = frozenset(OUTPUTS)
        unlabelled = np.full(picture.shape, UNKNOWN, np.uint8)
        yield _Slice(picture, kind, lungs, unlabelled if lesion_mask is None else lesion_mask, known)


def _read_labelled_pictures(source: dict[str, Any], root: Path) -> Iterator[tuple[str, _Slice]]:
    """Read pictures whose masks hold several labels."""
    first, last = source.get("numbers", [0, 10**9])
    for file in sorted((root / source["pictures"]).iterdir()):
        digits = "".join(filter(str.isdigit, file.stem))
        if digits and not first <= int(digits) <= last:
            continue
        truth = (root / source["masks"] / file.stem).with_suffix(".png")
        if not truth.is_file():
            raise ScanError(f"The mask {truth} is missing: each picture needs one of the same name.")
        picture = grey_picture(file)
        with Image.open(truth) as opened:
            stored = np.asarray(opened)  # of a palette, the number is the label
        if stored.shape != picture.shape:
            raise ScanError(
                f"The mask {truth} has the shape {stored.shape}, its picture {picture.shape}: "
                "they must be equal."
            )
        lesions = np.zeros(picture.shape, np.uint8)
        for value, name in source["values"].items():
            lesions[stored == int(value)] = lesion(name).value
        knows = frozenset(source["values"].values())
        yield (
            source.get("patient", file.stem),
            _Slice(picture, source.get("kind", "grey"), None, lesions, knows),
        )


def _read_volumes(source: dict[str, Any], root: Path) -> Iterator[tuple[str, _Slice]]:
    """Read folders of scans that are labelled whole, each finding by its own value."""
    for folder in sorted(p for p in (root / source["volumes"]).iterdir() if (p / "ct.nii.gz").is_file()):
        scan = read_scan(folder / "ct.nii.gz")
        lungs, lesions = (_read_mask(folder / f"{name}.nii.gz", scan) for name in ("lungs", "lesions"))
        for values, lung, lesion_map in zip(scan.voxels, lungs, lesions, strict=True):
            yield folder.name, _Slice(values, _kind(scan), lung, lesion_map, frozenset(OUTPUTS))


def _read_labelled_scan(source: dict[str, Any], root: Path) -> Iterator[tuple[str, _Slice]]:
    scan = read_scan(root / source["scan"])
    name, shape = source.get("patient", scan.name), scan.voxels.shape
    threshold = source.get("threshold", 0)
    first, last = source.get("slices", [0, shape[0] - 1])
    if not 0 <= first <= last < shape[0]:
        raise ScanError(
            f"{root / source['scan']} has no slices {first} to {last}: it has 0 to {shape[0] - 1}."
        )
    free_of = frozenset(OUTPUTS if source.get("negative", False) else source.get("free_of", ()))
    knows = free_of | {finding for key, finding in _MASKS.items() if key in source}
    truths = {
        key: _read_mask(root / source[key], scan, threshold) for key in ("lungs", *_MASKS) if key in source
    }
    lesions = np.zeros(shape, np.uint8)
    for key, finding in _MASKS.items():
        if key in source:
            lesions[truths[key]] = lesion(finding).value
    for box in source.get("unlabelled", ()):
        z0, z1, y0, y1, x0, x1 = box
        lesions[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = UNKNOWN
    kind = _kind(scan)
    for z in range(first, last + 1):
        lungs = truths["lungs"][z].astype(np.uint8) if "lungs" in truths else None
        if source.get("negative", False):
            lungs = np.zeros(shape[1:], np.uint8)
        yield name, _Slice(scan.voxels[z], kind, lungs, lesions[z], knows)


_MASKS = {"lesions": UNION, "effusion": "pleural effusion"}
"""Settings that name a mask of a scan, and the finding that it labels."""


def _kind(scan: Scan) -> str:
    return "HU" if scan.intensity == "HU" else "grey"


def _read_mask(path: Path, scan: Scan, threshold: float | None = None) -> npt.NDArray[Any]:
    """Read a mask, or without a threshold a label map, that must lie on its scan."""
    mask = read_mask(path, threshold)
    if mask.shape != scan.voxels.shape:
        raise ScanError(
            f"The mask {path} has the shape {mask.shape}, its scan {scan.voxels.shape}: they must be equal."
        )
    return mask


_READERS = {
    "patients": _read_patients,
    "pictures": _read_labelled_pictures,
    "scan": _read_labelled_scan,
    "volumes": _read_volumes,
}


def expanded(where: str) -> str:
    """Return a path of a description with its variables filled in. Raises ScanError if one is not set."""
    found = os.path.expandvars(where)
    if "$" in found:
        raise ScanError(f"The training description needs the variable {found}: set it to the data's folder.")
    return found


def grey_picture(file: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as grey, (y, x). Raises ScanError."""
    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise ScanError(
            f"{file} cannot be read as a picture ({error}): remove it or save it again."
        ) from error
