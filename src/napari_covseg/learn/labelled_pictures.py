"""Single pictures of which is known what they show, by patient and website: what recognition learns from."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.labels import NAMES, OTHER
from napari_covseg.learn.training_set import expanded, grey_picture
from napari_covseg.models.preparation import Preparation

Names = npt.NDArray[np.str_]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LabelledPictures:
    """Pictures with their classes.

    Attributes
    ----------
    pictures : tuple of ndarray of uint8, shape (y, x)
        Grey, of any size, as they were stored.
    classes : ndarray of str, shape (n,)
        Of `labels.NAMES`, "recognition".
    patients : ndarray of str, shape (n,)
        Or groups of pictures of which nobody knows whose they are.
    sources, sites : ndarray of str, shape (n,)
        The set that a picture was read from, and the website that it was taken from there; the source again
        where no site is known.
    modalities : ndarray of str, shape (n,)
        ``"X-ray"`` or ``"CT"``.
    terms : ndarray of str, shape (n,)
        Licence of each picture.
    folds, validation : dict of str to list of str
        Patients that test in a fold, and that calibrate there.
    licence : str
        Of a model that learns from them.
    """

    pictures: tuple[Picture, ...]
    classes: Names
    patients: Names
    sources: Names
    sites: Names
    modalities: Names
    terms: Names
    folds: dict[str, list[str]] = field(default_factory=dict)
    validation: dict[str, list[str]] = field(default_factory=dict)
    licence: str = ""

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self, chosen: npt.NDArray[Any]) -> LabelledPictures:
        """Return the pictures with these numbers, or for which a mask is true; folds are kept."""
        numbers = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        columns = ("classes", "patients", "sources", "sites", "modalities", "terms")
        return replace(
            self,
            pictures=tuple(self.pictures[number] for number in numbers),
            **{name: getattr(self, name)[numbers] for name in columns},
        )

    def of_classes(self, outputs: Sequence[str]) -> LabelledPictures:
        """Return the pictures that a network with these outputs learns from.

        With an output "not COVID-19" everything else that is not an output is that; without it pictures of
        other classes are left out.
        """
        there = np.isin(self.classes, outputs)
        if OTHER not in outputs:
            return self.rows(there)
        return replace(self, classes=np.where(there, self.classes, OTHER))

    def prepared(self, preparation: Preparation) -> npt.NDArray[np.uint8]:
        """Return all pictures as a network sees them, shape (n, size, size)."""
        return np.stack([preparation(picture, "grey") for picture in self.pictures])

    def numbers(self, outputs: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the place of each picture's class among the outputs, shape (n,)."""
        place = {name: number for number, name in enumerate(outputs)}
        return np.array([place[name] for name in self.classes.tolist()], np.int64)

    @cached_property
    def licences(self) -> dict[str, str]:
        """The licences of the pictures of each source, listed."""
        found: dict[str, list[str]] = {}
        for source, terms in sorted({*zip(self.sources.tolist(), self.terms.tolist(), strict=True)}):
            found.setdefault(source, []).append(terms)
        return {source: ", ".join(terms) for source, terms in found.items()}


_SETTINGS: dict[str, type] = {
    "name": str, "labels": str, "modality": str, "licence": str, "root": str, "class": str, "classes": dict,
    "patient": str, "block": int, "site": str, "licence_of": str, "left_out": list,
}  # fmt: skip
_MODALITIES = ("X-ray", "CT")


def read_labelled_pictures(path: str | os.PathLike[str]) -> LabelledPictures:
    """Read the pictures that a TOML description names; see ``docs/training.md``.

    Raises
    ------
    ScanError
        If the description, a table of labels or a picture cannot be used.
    """
    path = Path(path)
    if path.suffix != ".toml" or not path.is_file():
        raise ScanError(
            f"{path} is no .toml description of labelled pictures, which recognition learns from: give one."
        )
    try:
        description = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScanError(f"The training description {path} is not valid TOML: {error}.") from error
    root = path.parent / expanded(description.get("root", ""))
    rows: list[tuple[Picture, tuple[str, ...]]] = []
    for source in description.get("source", []):
        _check(source, path)
        where = path.parent / expanded(source["root"]) if "root" in source else root
        rows += _read(source, where / source["labels"])
    if not rows:
        raise ScanError(f"{path} names no picture: each [[source]] needs a table of labels.")
    classes, patients, sources, sites, modalities, terms = (
        np.array(column) for column in zip(*(words for _, words in rows), strict=True)
    )
    pictures = LabelledPictures(
        tuple(picture for picture, _ in rows),
        classes,
        patients,
        sources,
        sites,
        modalities,
        terms,
        licence=description.get("licence", ""),
    )
    folds = description.get("folds", {})
    if isinstance(folds, int):
        folds = divided(pictures.patients, pictures.classes, folds)
    names = list(folds)
    following = dict(zip(names, [*names[1:], *names[:1]], strict=True))
    validation = {name: folds[following[name]] for name in names if following[name] != name}
    return replace(pictures, folds=folds, validation=description.get("validation", validation))


def divided(patients: Names, classes: Names, count: int) -> dict[str, list[str]]:
    """Deal patients out into folds, those of each class in turn, in an order that only their names decide.

    Raises
    ------
    ScanError
        If there are fewer patients than folds, or fewer than two folds.
    """
    first = dict(zip(patients[::-1].tolist(), classes[::-1].tolist(), strict=True))
    if not 2 <= count <= len(first):
        raise ScanError(f"{len(first)} patients cannot be divided into {count} folds: change folds.")
    order = sorted(first, key=lambda name: (first[name], hashlib.sha256(name.encode()).hexdigest()))
    return {str(number + 1): sorted(order[number::count]) for number in range(count)}


def _check(source: dict[str, Any], path: Path) -> None:
    if "labels" not in source:
        raise ScanError(
            f"{path} has a source without a table of labels, {source}: recognition learns from labelled "
            "pictures; labelled slices are for segmentation."
        )
    for key, value in source.items():
        if key not in _SETTINGS:
            raise ScanError(f"The source {source['labels']} has a setting that it cannot have, {key}.")
        if not isinstance(value, _SETTINGS[key]):
            raise ScanError(f"The source {source['labels']} has a setting that cannot be used: {key}.")
    if source.get("modality") not in _MODALITIES:
        raise ScanError(f"The source {source['labels']} needs a modality: X-ray or CT.")
    known = NAMES["recognition"]
    if not source.get("classes") or (wrong := set(source["classes"].values()) - set(known)):
        named = f"; {', '.join(map(str, wrong))} is none" if source.get("classes") else ""
        raise ScanError(
            f"The source {source['labels']} needs classes, what its labels mean: {', '.join(known)}{named}."
        )


def _read(source: dict[str, Any], table: Path) -> Iterator[tuple[Picture, tuple[str, ...]]]:
    """Yield each picture with its class, patient, source, site, modality and licence."""
    name = source.get("name", table.parent.name)
    columns = {key: source.get(key, default) for key, default in _COLUMNS.items()}
    for row in _rows(table, {"file", *columns.values()} - {""}, source.get("left_out", [])):
        label = row[columns["class"]]
        if label not in source["classes"]:
            continue
        file = table.parent / row["file"]
        terms = row.get(columns["licence_of"]) or source.get("licence", "not stated")
        if re.search(r"\bND\b|no.?deriv", terms, re.IGNORECASE):
            raise ScanError(
                f"{file} has a licence that allows no derivatives, {terms}, and weights are one: leave it "
                "out."
            )
        if not (patient := row[columns["patient"]]):
            if "block" not in source:
                raise ScanError(f"{file} has no patient: leave it out, or give the source a block.")
            digits = re.sub(r"\D", "", file.stem)
            patient = f"{file.parent.name} block {int(digits or 0) // source['block']}"
        site = row.get(columns["site"]) or name
        cls = source["classes"][label]
        yield grey_picture(file), (cls, patient, name, site, source["modality"], terms)


_COLUMNS = {"class": "class", "patient": "patient", "site": "", "licence_of": ""}


def _rows(table: Path, columns: set[str], left_out: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScanError(f"The table of labels {table} cannot be read ({error}): correct its path.") from error
    asked = columns.union(*(pattern.keys() for pattern in left_out))
    if missing := asked - set(reader.fieldnames or ()):
        raise ScanError(f"The table of labels {table} has no column {', '.join(sorted(missing))}.")
    for row in rows:
        values = {key: value or "" for key, value in row.items() if key is not None}
        if not any(
            all(fnmatchcase(values[key], pattern) for key, pattern in one.items()) for one in left_out
        ):
            yield values
