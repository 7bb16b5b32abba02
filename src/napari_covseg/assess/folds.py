"""Who learns, who chooses and who is tested: by patient, by source, or by slice as some papers do."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_covseg.assess.comparison import Protocol
from napari_covseg.errors import ModelError
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.learn.train_model import split_patients
from napari_covseg.models.card import ModelCard, read_card
from napari_covseg.models.catalogue import find

FOLDS = 5
_Names = dict[str, list[str]]


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold of a cross-validation.

    Attributes
    ----------
    name : str
    slices : LabelledSlices
        All slices. With the protocol "slice" a patient goes by up to three names there, one
        for each part that some of the slices are in.
    split : dict of str to list of str
        Names in `slices` by part: ``training``, ``validation``, ``test``.
    people : ndarray of str, shape (n,)
        The patient of each slice.
    checksum : str
        Of who is in which part; with the protocol "slice", of which slice is.
    """

    name: str
    slices: LabelledSlices
    split: dict[str, list[str]]
    people: npt.NDArray[np.str_]
    checksum: str

    @cached_property
    def data(self) -> str:
        """A checksum of all slices and masks."""
        return f"{self.slices.checksum():08x}"

    def rows(self, part: str) -> npt.NDArray[np.intp]:
        """Return the slices of a part."""
        return np.flatnonzero(np.isin(self.slices.patients, self.split[part]))


def lungs_model(fold: Fold, name: str) -> Path:
    """Return the file of the model that finds the lungs of a fold: one that has not seen who is tested.

    Parameters
    ----------
    fold : Fold
    name : str
        A model's name or file, or a folder of models of which each fold takes the first that fits.

    Raises
    ------
    ModelError
        If none does: its lungs of those patients would be better than those of new ones.
    """
    tested = set(fold.people[fold.rows("test")].tolist())
    if not Path(name).is_dir():
        entry = find(name)
        if known := sorted(tested & _seen(entry.card)):
            raise ModelError(
                f"The model {entry.card.id} has learned from {', '.join(known)}, who are tested in fold "
                f"{fold.name}: name a folder of models, of which each fold takes one that has not."
            )
        return entry.path
    for path in sorted(Path(name).glob("*.safetensors")):
        if not tested & _seen(read_card(path)):
            return path
    raise ModelError(
        f"Each model in {name} has learned from somebody who is tested in fold {fold.name}: train one without"
        f" {', '.join(sorted(tested))} to find the lungs."
    )


def _seen(card: ModelCard) -> set[str]:
    return {*card.split.get("training", ()), *card.split.get("validation", ())}


def make_folds(
    data: LabelledSlices, protocol: Protocol = "patient", file: Path | None = None, seed: int = 0
) -> list[Fold]:
    """Divide the data.

    By patient: as the file or else the data's description says; without either, the
    patients with lesions are dealt to five folds, and the first of the next fold validates.
    By source: one fold for each line of the table ``[leave_out]``, whose patients are tested; all others
    are learned from, but those that ``[validation]`` names for that source.
    By slice: a random fifth of the slices of all these patients is tested, the next fifth
    validates, three fifths are learned from. Sources that no fold tests (healthy lungs,
    slices without lung) are always learned from.

    Parameters
    ----------
    data : LabelledSlices
    protocol : {"patient", "slice", "source"}
    file : Path, optional
        TOML with the tables ``[folds]`` and ``[validation]``, as in a training description; by source
        it is needed, with the table ``[leave_out]`` of names, which may be patterns as of files.
    seed : int
        Of the random slices.

    Raises
    ------
    ModelError
        If the file cannot be used, or names patients that the data has not.
    """
    if protocol == "source":
        if file is None or not file.is_file():
            raise ModelError("To leave a source out, give a .toml file with a table [leave_out].")
        tables = _read_tables(file, "leave_out")
        left_out = _sources(data, tables["leave_out"], file)
        chosen = {name: tables["validation"][name] for name in left_out if name in tables["validation"]}
        data = replace(data, folds=left_out, validation=chosen)
        return [_by_patient(data, name) for name in left_out]
    if file is not None or not data.folds:
        tested, validated = _dealt(data) if file is None else _read_folds(file)
        data = replace(data, folds=tested, validation=validated)
    by_patient = [_by_patient(data, name) for name in data.folds]
    if protocol == "patient":
        return by_patient
    return _by_slice(data, {name for fold in by_patient for name in fold.split["test"]}, seed)


def _by_patient(data: LabelledSlices, name: str) -> Fold:
    split = split_patients(data, name)
    if not split["test"]:
        raise ModelError(f"Fold {name} tests nobody: name its patients in [folds].")
    return Fold(name, data, split, data.patients, _checksum(split))


def _by_slice(data: LabelledSlices, tested: set[str], seed: int) -> list[Fold]:
    rows = np.flatnonzero(np.isin(data.patients, sorted(tested)))
    if len(rows) < FOLDS:
        raise ModelError(f"{len(rows)} slices cannot be divided into {FOLDS} folds: give more.")
    parts = np.array_split(np.random.default_rng(seed).permutation(rows), FOLDS)
    folds = []
    for k in range(FOLDS):
        part = np.full(len(data), "training", dtype="U16")
        part[parts[k]], part[parts[(k + 1) % FOLDS]] = "test", "validation"
        names = np.array(
            [
                f"{name} ({where} slices)" if name in tested else name
                for name, where in zip(data.patients.tolist(), part.tolist(), strict=True)
            ]
        )
        split = {
            where: sorted(set(names[part == where].tolist())) for where in ("training", "validation", "test")
        }
        known = dict(zip(names.tolist(), data.patients.tolist(), strict=True))
        weights = {name: data.weights[patient] for name, patient in known.items() if patient in data.weights}
        slices = replace(data, patients=names, weights=weights, folds={}, validation={})
        folds.append(Fold(str(k + 1), slices, split, data.patients, _checksum([split, part.tolist()])))
    return folds


def _dealt(data: LabelledSlices) -> tuple[_Names, _Names]:
    """Deal the patients with lesions to folds, in an order that is the same everywhere."""
    findings = [channel for channel, name in enumerate(data.outputs) if name != "lungs"] or [0]
    with_some = (data.masks[:, findings] == 1).any((1, 2, 3))
    ill = {str(name) for name in np.unique(data.patients[with_some])}
    names = sorted(ill, key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
    number = min(FOLDS, len(names))
    if number < 3:
        raise ModelError(
            f"{len(names)} patients with lesions cannot be divided into training, validation and test: "
            "give at least 3."
        )
    dealt = [names[k::number] for k in range(number)]
    return (
        {str(k + 1): sorted(part) for k, part in enumerate(dealt)},
        {str(k + 1): [dealt[(k + 1) % number][0]] for k in range(number)},
    )


def _read_folds(file: Path) -> tuple[_Names, _Names]:
    tables = _read_tables(file, "folds")
    return tables["folds"], tables["validation"]


def _read_tables(file: Path, needed: str) -> dict[str, _Names]:
    """Read the table of test patients and, if there is one, that of validation patients."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"The folds {file} cannot be read ({error.strerror}): correct the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"The folds {file} are not valid TOML: {error}.") from error
    tables = {key: content.get(key, {}) for key in (needed, "validation")}
    for key, table in tables.items():
        if not isinstance(table, dict) or not all(
            isinstance(names, list) and all(isinstance(name, str) for name in names)
            for names in table.values()
        ):
            raise ModelError(f"[{key}] in {file} is no table of lists of patients: correct it.")
    if not tables[needed]:
        raise ModelError(f"{file} has no table [{needed}]: name the test patients of each fold there.")
    return tables


def _sources(data: LabelledSlices, table: _Names, file: Path) -> _Names:
    """Return the patients of each source that is left out; no patient may be in two."""
    everyone = sorted(set(data.patients.tolist()))
    found: _Names = {}
    for source, patterns in table.items():
        if not re.fullmatch(r"[\w.-]+( [\w.-]+)*", source):
            raise ModelError(f"The source {source!r} in {file} cannot be the name of a file: rename it.")
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in everyone):
                raise ModelError(
                    f"No patient of the data is called {pattern}, as the source {source} in {file} says: "
                    f"there are {', '.join(everyone)}."
                )
        found[source] = [name for name in everyone if any(fnmatchcase(name, pattern) for pattern in patterns)]
    every = [name for names in found.values() for name in names]
    if twice := sorted({name for name in every if every.count(name) > 1}):
        raise ModelError(f"{', '.join(twice)} would be left out with two sources of {file}: name one.")
    return found


def _checksum(parts: dict[str, list[str]] | Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
