"""A case on disk: a scan, its labels, what was reviewed and what models said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from napari_covseg.cases.lock import Lock, holder
from napari_covseg.cases.prediction import Prediction, PredictionInfo, create_prediction
from napari_covseg.cases.recognition import FOLDER, Recognition, RecognitionInfo, create_recognition
from napari_covseg.cases.store import (
    FORMAT,
    KEY,
    DamagedError,
    check_format,
    children,
    read_record,
    read_slice,
    reading,
    where,
    write_record,
    writing,
)
from napari_covseg.errors import CaseError
from napari_covseg.files import write_text
from napari_covseg.labels import GROUPS, Group, Task
from napari_covseg.scans.appearance import MOST_SLICES, Appearance, look
from napari_covseg.scans.scan import Intensity, Scan

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""When a case was used of which nobody knows."""


@dataclass(frozen=True)
class Activity:
    """When a case was used, and how often a person has changed it.

    Attributes
    ----------
    opened, modified : datetime
        UTC.
    revision : int
        Grows with each change that a person makes.
    """

    opened: datetime
    modified: datetime
    revision: int

    def as_record(self) -> npt.NDArray[np.int64]:
        """Return opened and modified (microseconds since 1970, UTC) and revision, int64 (3,)."""
        times = [(time - NEVER) // timedelta(microseconds=1) for time in (self.opened, self.modified)]
        return np.array([*times, self.revision], np.int64)

    @classmethod
    def from_record(cls, record: npt.NDArray[np.int64]) -> Activity:
        """Rebuild from `as_record`."""
        opened, modified = (NEVER + timedelta(microseconds=int(time)) for time in record[:2])
        return cls(opened, modified, int(record[2]))


class Review(IntEnum):
    """What has happened to a slice, as stored per slice.

    A person corrects a slice by painting in it. What a tool spreads over slices that nobody looks
    at makes them *spread*: kept from models as a person's are, but no truth.
    """

    UNTOUCHED = 0
    PREDICTED = 1
    CORRECTED = 2
    ACCEPTED = 3
    SPREAD = 4


REVIEWED = (Review.CORRECTED, Review.ACCEPTED)
"""States of slices that a person has looked at: what is right is known of these alone."""


class Touch(IntEnum):
    """Whose a voxel's label is, as stored per voxel."""

    NOBODY = 0
    PERSON = 1
    SPREAD = 2


def is_reviewed(review: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which slices a person has corrected or accepted, bool (z,)."""
    return np.isin(review, REVIEWED)


@dataclass(frozen=True)
class Damage:
    """Something of a case that could not be read and is shown empty.

    Attributes
    ----------
    what : {"scan", "labels", "touched", "review", "activity"}
    group : str
        Label group, or empty.
    z : int
        Slice, or -1.
    message : str
        What is wrong, in one sentence.
    rebuilt : bool
        Whether the history had all of it, so that nothing is lost and nothing is empty.
    """

    what: str
    group: str
    z: int
    message: str
    rebuilt: bool = False


APPEARANCE = "napari_covseg_appearance"
"""The attribute that says what the scan looks like; beside the others, as it alone can change."""
OVERRIDES = "napari_covseg_appearance_said"
"""The attribute with what a person says instead: some of the fields."""


class Case:
    """A case as it lies in the store; reading needs no lock.

    Parameters
    ----------
    group : zarr.Group
        ``cases/<id>`` of a workspace.

    Raises
    ------
    CaseError
        If the group is no case, or of a newer format.
    """

    def __init__(self, group: zarr.Group) -> None:
        self.group = group
        self._own = check_format(group, "case")
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self.id: str = group.basename
        self.name: str = self._own["name"]

    @property
    def path(self) -> str:
        """Where the case lies: a folder, or a URL."""
        return where(self.group)

    @property
    def folder(self) -> Path | None:
        """The case's folder, None if it lies behind a URL."""
        store = self.group.store
        return Path(store.root, self.group.path) if isinstance(store, LocalStore) else None

    @property
    def header(self) -> dict[str, Any]:
        """All that is known of the scan but its voxels, for `Scan.from_header`."""
        return dict(self._own["header"])

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """(z, y, x) in mm, None for pictures of unknown size."""
        spacing = self._own["header"]["spacing"]
        return None if spacing is None else (spacing[0], spacing[1], spacing[2])

    @property
    def intensity(self) -> Intensity:
        """Whether voxels are HU or grey values."""
        return "HU" if self._own["header"]["intensity"] == "HU" else "grey"

    @property
    def appearance(self) -> Appearance:
        """What the scan looks like: as it was found, or as a person has said. Raises CaseError."""
        return self.found.overruled(**self.overrides)

    @property
    def stored_appearance(self) -> Appearance | None:
        """What was found when the scan was imported; None if nobody has looked. Raises CaseError."""
        with reading("What the scan looks like", self.path):
            stored = self.group.attrs.get(APPEARANCE)
        return Appearance.from_json(stored) if isinstance(stored, dict) else None

    @property
    def found(self) -> Appearance:
        """What the scan looks like by its pixels; looked at now if nobody has before. Raises CaseError."""
        if (stored := self.stored_appearance) is not None:
            return stored
        few = np.linspace(0, self.shape[0] - 1, min(self.shape[0], MOST_SLICES)).round().astype(int)
        return look(np.stack([self.read_slice(int(z)) for z in few]), self.intensity)

    @property
    def overrides(self) -> dict[str, Any]:
        """What a person says of how it looks, by field; see `Appearance.overruled`. Raises CaseError."""
        with reading("What the scan looks like", self.path):
            stored = self.group.attrs.get(OVERRIDES)
        return dict(stored) if isinstance(stored, dict) else {}

    def rename(self, name: str) -> None:
        """Call the case otherwise; only for who holds the lock. Raises CaseError if it cannot be written."""
        with writing("the name", self.path):
            own = {**self._own, "name": name}
            self.group.attrs[KEY] = own
        self._own, self.name = own, name

    def write_appearance(self, found: Appearance, overrides: Mapping[str, Any]) -> None:
        """Keep what the scan looks like, and what a person says instead; only for who holds the lock.

        Raises
        ------
        CaseError
            If the disk is full or the folder is read-only.
        ScanError
            If there is no such field or value; see `Appearance.overruled`.
        """
        found.overruled(**overrides)
        with writing("what the scan looks like", self.path):
            self.group.attrs.update({APPEARANCE: found.to_json(), OVERRIDES: dict(overrides)})

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        z, y, x = self._own["shape"]
        return z, y, x

    def read_slice(self, z: int) -> npt.NDArray[Any]:
        """Return one slice of the scan, int16 or uint16 (y, x).

        Raises
        ------
        CaseError
            If it is missing, damaged or cannot be read.
        """
        values = read_slice(self.array("0"), z)
        if values is None:
            raise DamagedError(
                f"Slice {z + 1} of {self.path} is missing: restore it or import the scan again."
            )
        return values

    def read_voxels(self) -> npt.NDArray[Any]:
        """Return the whole scan, int16 or uint16 (z, y, x). Raises CaseError as `read_slice`."""
        voxels = np.empty(self.shape, self.array("0").dtype)
        for z in range(self.shape[0]):
            voxels[z] = self.read_slice(z)
        return voxels

    def scan(self) -> Scan:
        """Return the scan with its voxels, as it was imported."""
        return Scan.from_header(self.header, self.read_voxels())

    def labels(self, group: Group) -> zarr.Array[Any]:
        """Return a live label map, uint8 (z, y, x)."""
        return self.array(f"labels/{group}/0")

    def touched(self, group: Group) -> zarr.Array[Any]:
        """Return whose each label is, `Touch` in uint8 (z, y, x); bool before format 2."""
        return self.array(f"labels/{group}/touched")

    def read_labels(self, group: Group, z: int) -> npt.NDArray[np.uint8]:
        """Return a slice of the live labels, uint8 (y, x). Raises CaseError."""
        values = read_slice(self.labels(group), z)
        return np.zeros(self.shape[1:], np.uint8) if values is None else values

    def read_touched(self, group: Group, z: int) -> npt.NDArray[np.uint8]:
        """Return whose the labels of a slice are, `Touch` in uint8 (y, x). Raises CaseError."""
        values = read_slice(self.touched(group), z)
        return np.zeros(self.shape[1:], np.uint8) if values is None else values.astype(np.uint8, copy=False)

    def bring_up_to_date(self) -> None:
        """Make a case of an earlier format one of this; only for who holds the lock.

        The bytes of its arrays stay. Done again after an interruption it goes on.

        Raises
        ------
        CaseError
            If the disk is full or the folder is read-only.
        """
        folder = self.folder
        if folder is None:
            return
        with writing("the case", self.path):
            if self._own["format"] < FORMAT:  # first, as who knows only the earlier one must not write here
                self._own = {**self._own, "format": FORMAT}
                self.group.attrs[KEY] = self._own
            for group in GROUPS:
                array = self.find_array(f"labels/{group}/touched")
                if array is None or array.dtype != np.bool_:
                    continue
                described = folder / "labels" / group / "touched" / "zarr.json"
                metadata = json.loads(described.read_bytes()) | {"data_type": "uint8", "fill_value": 0}
                write_text(described, json.dumps(metadata, indent=2))
                del self._arrays[f"labels/{group}/touched"]

    @property
    def review(self) -> npt.NDArray[np.uint8]:
        """Each slice's `Review` state, uint8 (z,), read from disk."""
        return read_record(self.array("review"), "The review record")

    def write_review(self, review: npt.NDArray[np.uint8]) -> None:
        """Write all `Review` states, (z,); only for who holds the lock."""
        write_record(self.array("review"), review, "the review record")

    @property
    def activity(self) -> Activity:
        """When the case was last used, read from disk."""
        return Activity.from_record(read_record(self.array("activity"), "The activity record"))

    def write_activity(self, activity: Activity) -> None:
        """Write when the case was used; only for who holds the lock."""
        write_record(self.array("activity"), activity.as_record(), "the activity record")

    def lock(self) -> Lock:
        """Take the right to change the case.

        Raises
        ------
        CaseError
            If somebody else has it, or if the case lies where nothing can be written.
        """
        folder = self.folder
        if folder is None:
            raise CaseError(f"{self.path} can only be read: copy the case to this computer to edit it.")
        return Lock(folder / "activity" / "lock", f'Case "{self.name}" ({self.id})')

    def held_by(self) -> str:
        """Return who has the case open for editing, in words; empty if nobody has."""
        folder = self.folder
        return "" if folder is None else holder(folder / "activity" / "lock")

    def begin_prediction(
        self,
        model_id: str,
        settings: dict[str, Any],
        class_names: Sequence[str],
        revision: int,
        *,
        probabilities: bool,
        uncertainty: bool = False,
    ) -> Prediction:
        """Start an empty prediction.

        Parameters
        ----------
        model_id : str
        settings : dict
            What the model was run with, as JSON values.
        class_names : sequence of str
            Names of the probability channels.
        revision : int
            `Activity.revision` that the prediction sees.
        probabilities, uncertainty : bool
            Whether to keep them.

        Raises
        ------
        CaseError
            If the disk is full or the folder is read-only.
        """
        predictions = self.subgroup("predictions", "r+")
        return create_prediction(
            predictions,
            self.shape,
            model_id,
            settings,
            class_names,
            revision,
            probabilities=probabilities,
            uncertainty=uncertainty,
        )

    def prediction(self, prediction_id: str) -> Prediction:
        """Return a prediction by its id; CaseError if there is none."""
        with reading(f'The prediction "{prediction_id}"', self.path):
            group = zarr.open_group(
                self.group.store, path=f"{self.group.path}/predictions/{prediction_id}", mode=self._mode
            )
        return Prediction(group)

    def predictions(self) -> list[PredictionInfo]:
        """Return the predictions that there are, oldest first; half-made or damaged ones are left out."""
        infos = []
        for prediction_id in self.prediction_names():
            with suppress(CaseError):
                infos.append(self.prediction(prediction_id).info)
        return infos

    def prediction_names(self) -> list[str]:
        """Return the ids of all predictions, readable or not. Raises CaseError."""
        return children(self.group, "predictions")

    def begin_recognition(
        self,
        model_id: str,
        task: Task,
        outputs: Sequence[str],
        settings: dict[str, Any],
        revision: int,
        heat_maps: tuple[int, int] | None = None,
    ) -> Recognition:
        """Start an empty recognition.

        Parameters
        ----------
        model_id : str
        task : {"recognition", "manifestations"}
        outputs : sequence of str
            What the probabilities are of.
        settings : dict
            What the model was run with, as JSON values; see `RecognitionInfo`.
        revision : int
            `Activity.revision` that it sees.
        heat_maps : tuple of int, optional
            Height and width of the heat maps, to keep them.

        Raises
        ------
        CaseError
            If the disk is full or the folder is read-only.
        """
        with reading("The case", self.path):
            case = zarr.open_group(self.group.store, path=self.group.path, mode="r+")
        given = (model_id, task, outputs, settings, revision, heat_maps)
        return create_recognition(case, self.shape[0], *given)

    def recognition(self, recognition_id: str) -> Recognition:
        """Return a recognition by its id; CaseError if there is none."""
        return Recognition(self.subgroup(f"{FOLDER}/{recognition_id}", self._mode))

    def recognitions(self) -> list[RecognitionInfo]:
        """Return the recognitions that there are, oldest first; half-made or damaged ones are left out."""
        infos = []
        for recognition_id in self.recognition_names():
            with suppress(CaseError):
                infos.append(self.recognition(recognition_id).info)
        return infos

    def recognition_names(self) -> list[str]:
        """Return the ids of all recognitions, readable or not. Raises CaseError."""
        with reading("The case", self.path):
            there = FOLDER in self.group
        return children(self.group, FOLDER) if there else []

    @property
    def _mode(self) -> Literal["r", "r+"]:
        return "r" if self.group.read_only else "r+"

    def subgroup(self, name: str, mode: Literal["r", "r+"]) -> zarr.Group:
        """Return a group by its path in the case. Raises CaseError if it is missing or damaged."""
        with reading(f'"{name}"', self.path):
            return zarr.open_group(self.group.store, path=f"{self.group.path}/{name}", mode=mode)

    def array(self, name: str) -> zarr.Array[Any]:
        """Return an array by its path in the case. Raises CaseError if it is missing or damaged."""
        if name not in self._arrays:
            with reading(f'"{name}"', self.path):
                array = self.group[name]
                if not isinstance(array, zarr.Array):
                    raise KeyError(name)
            self._arrays[name] = array.with_config({"write_empty_chunks": True})
        return self._arrays[name]

    def find_array(self, name: str) -> zarr.Array[Any] | None:
        """Return an array by its path in the case, None if it is missing or damaged."""
        try:
            with reading(f'"{name}"', self.path):
                there = name in self._arrays or name in self.group
            return self.array(name) if there else None
        except DamagedError:
            return None


def now() -> datetime:
    """Return the time as it is kept, in UTC."""
    return datetime.now(UTC)
