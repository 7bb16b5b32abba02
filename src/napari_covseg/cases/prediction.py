"""A prediction: what one model said of a case, slice by slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_covseg.cases.chunks import checksum
from napari_covseg.cases.store import (
    FORMAT,
    KEY,
    check_format,
    create_slices,
    has_slice,
    read_slice,
    reading,
    where,
    write_slice,
    writing,
)
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group


@dataclass(frozen=True)
class PredictionInfo:
    """What a prediction was made with.

    Attributes
    ----------
    id, model_id : str
    created : datetime
        When it began, UTC.
    settings : dict
        The model's settings for this prediction, as JSON.
    class_names : tuple of str
        Names of the channels of `probabilities`.
    revision : int
        State of the person's corrections that the prediction saw.
    probabilities : bool
        Whether probabilities are kept.
    finished : bool
        Whether the prediction went to its end.
    """

    id: str
    model_id: str
    created: datetime
    settings: dict[str, Any]
    class_names: tuple[str, ...]
    revision: int
    probabilities: bool
    finished: bool


class Prediction:
    """One prediction's arrays. One process writes them, any may read them meanwhile.

    A slice counts as done only when it has a row in the record, with the checksum of its
    lungs and lesions, which is written after them: a chunk that is missing (which zarr
    reads as zeros) or that does not fit its row is never taken for data.

    Parameters
    ----------
    group : zarr.Group
        ``predictions/<prediction>`` of a case.

    Raises
    ------
    CaseError
        If the group is no prediction, or of a newer format.
    """

    def __init__(self, group: zarr.Group) -> None:
        self._group = group
        check_format(group, "run")
        self.id = group.basename
        with reading("The prediction", where(group)):
            self._labels: dict[Group, zarr.Array[Any]] = {name: stored_array(group, name) for name in GROUPS}
            self._record = stored_array(group, "done")
            self._entropy = (
                stored_array(group, "entropy") if "entropy" in group else None
            )  # not in early ones
            self._uncertainty = stored_array(group, "uncertainty") if "uncertainty" in group else None
        self._probabilities = stored_array(group, "probabilities") if self.info.probabilities else None

    @property
    def info(self) -> PredictionInfo:
        """What the prediction was made with."""
        own = check_format(self._group, "run")
        return PredictionInfo(
            id=self.id,
            model_id=own["model_id"],
            created=datetime.fromisoformat(own["created"]),
            settings=own["settings"],
            class_names=tuple(own["class_names"]),
            revision=own["revision"],
            probabilities=own["probabilities"],
            finished=own["finished"],
        )

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Which slices are complete, shape (z,), read from disk."""
        return np.array([self.is_done(z) for z in range(self._record.shape[0])], np.bool_)

    def is_done(self, z: int) -> bool:
        """Whether a slice is complete, read from disk."""
        return has_slice(self._record, z)

    def write_slice(
        self,
        z: int,
        lungs: npt.NDArray[np.uint8],
        lesions: npt.NDArray[np.uint8],
        probabilities: npt.NDArray[np.uint8] | None = None,
        entropy: float = math.nan,
        uncertainty: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Write one slice, then record it as done.

        Parameters
        ----------
        z : int
        lungs, lesions : ndarray of uint8, shape (y, x)
        probabilities : ndarray of uint8, shape (class, y, x), optional
            255 is certain. Needed if and only if the prediction keeps them.
        entropy : float
            How unsure the model is, in bits summed over the slice; NaN where it is not known.
        uncertainty : ndarray of uint8, shape (y, x), optional
            How unsure it is of each voxel. Needed if and only if the prediction keeps that.

        Raises
        ------
        CaseError
            If the disk is full or the folder is read-only.
        """
        if (probabilities is None) != (self._probabilities is None):
            raise ValueError("probabilities have to be given if and only if the prediction keeps them")
        if (uncertainty is None) != (self._uncertainty is None):
            raise ValueError("the uncertainty has to be given if and only if the prediction keeps it")
        if has_slice(self._record, z):
            self._rewrite(z, dict(zip(GROUPS, (lungs, lesions), strict=True)))
        else:
            write_slice(self._labels["lungs"], z, lungs)
            write_slice(self._labels["lesions"], z, lesions)
        if probabilities is not None and self._probabilities is not None:
            write_slice(self._probabilities, z, probabilities)
        if self._entropy is not None and not math.isnan(entropy):
            write_slice(self._entropy, z, np.array([entropy], np.float64))
        if uncertainty is not None and self._uncertainty is not None:
            write_slice(self._uncertainty, z, uncertainty)
        sums = [[checksum(values)] * 2 for values in (lungs, lesions)]
        write_slice(self._record, z, np.array(sums, np.uint32))

    def write_final(self, group: Group, z: int, values: npt.NDArray[np.uint8]) -> None:
        """Write the last word on a slice that is already done, shape (y, x).

        Raises
        ------
        CaseError
            If the slice is not done yet, if the disk is full or the folder is read-only.
        """
        self._rewrite(z, {group: values})

    def _rewrite(self, z: int, labels: dict[Group, npt.NDArray[np.uint8]]) -> None:
        """Replace labels after recording both checksums, so that an interruption leaves either."""
        row = self._row(z)
        known = row.copy()
        changed = []
        for index, group in enumerate(GROUPS):
            if group in labels:
                before, after = known[index]
                if before != after:  # an earlier rewrite may have been interrupted
                    before = checksum(self._checked(group, z, known))
                row[index] = before, checksum(labels[group])
                if row[index][1] != before:
                    changed.append(group)
        # the same again is not written: replacing a file takes longer than making one
        if changed:
            write_slice(self._record, z, row)
        for group in changed:
            write_slice(self._labels[group], z, labels[group])

    def read_slice(self, z: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return lungs and lesions of a slice, each uint8 (y, x).

        Raises
        ------
        CaseError
            If the slice is not done yet, is missing, or does not fit its checksum.
        """
        row = self._row(z)
        lungs, lesions = (self._checked(group, z, row) for group in GROUPS)
        return lungs, lesions

    def read_probabilities(self, z: int) -> npt.NDArray[np.uint8] | None:
        """Return the probabilities of a slice, uint8 (class, y, x), or None if not kept."""
        if self._probabilities is None:
            return None
        values = read_slice(self._probabilities, z)
        if values is None:
            raise CaseError(f"Slice {z + 1} of {where(self._probabilities)} is missing: predict again.")
        return values

    def read_entropy(self, z: int) -> float:
        """Return how unsure the model is of a slice, in bits summed over it; NaN where that is not known."""
        values = None if self._entropy is None else read_slice(self._entropy, z)
        return math.nan if values is None else float(values[0])

    def read_uncertainty(self, z: int) -> npt.NDArray[np.uint8] | None:
        """Return how unsure the model is of each voxel of a slice, uint8 (y, x); None if not kept.

        The prediction's settings say what of: see `predict.ensemble.Ensemble.measures`.
        """
        if self._uncertainty is None:
            return None
        values = read_slice(self._uncertainty, z)
        if values is None:
            raise CaseError(f"Slice {z + 1} of {where(self._uncertainty)} is missing: predict again.")
        return values

    def finish(self) -> None:
        """Mark the prediction as gone to its end."""
        own = {**check_format(self._group, "run"), "finished": True}
        with writing("the prediction", where(self._group)):
            self._group = self._group.update_attributes({KEY: own})

    def _row(self, z: int) -> npt.NDArray[np.uint32]:
        """The checksums of a slice, uint32 (group, 2): either of the two is right."""
        row = read_slice(self._record, z)
        if row is None:
            raise CaseError(f"Slice {z + 1} of {where(self._group)} is not predicted yet: run the model.")
        return row

    def _checked(self, group: Group, z: int, row: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
        """Return a slice's labels that fit `row`, or the one that has come since."""
        for _ in range(3):  # a rewrite may come between reading the row and the labels
            values = read_slice(self._labels[group], z)
            if values is not None and checksum(values) in row[list(GROUPS).index(group)]:
                return values
            row = self._row(z)
        raise CaseError(
            f"Slice {z + 1} of {where(self._labels[group])} is missing or damaged: predict again."
        )


def create_prediction(
    predictions: zarr.Group,
    shape: tuple[int, int, int],
    model_id: str,
    settings: dict[str, Any],
    class_names: Sequence[str],
    revision: int,
    *,
    probabilities: bool,
    uncertainty: bool = False,
) -> Prediction:
    """Create an empty prediction; see `Case.begin_prediction`. Its attributes come last and make it one."""
    now = datetime.now(UTC)
    with writing("the new prediction", where(predictions)):
        group = predictions.create_group(free_name(predictions, now))
        for name in GROUPS:
            create_slices(group, name, shape, np.uint8)
        if probabilities:
            full = (len(class_names), *shape)
            create_slices(group, "probabilities", full, np.uint8, ("c", "z", "y", "x"))
        if uncertainty:
            create_slices(group, "uncertainty", shape, np.uint8)
        create_slices(group, "entropy", (shape[0], 1), np.float64, ("z", "bits"))
        create_slices(group, "done", (shape[0], len(GROUPS), 2), np.uint32, ("z", "group", "checksum"))
        own = {
            "kind": "run",
            "format": FORMAT,
            "model_id": model_id,
            "created": now.isoformat(),
            "settings": settings,
            "class_names": list(class_names),
            "revision": revision,
            "probabilities": probabilities,
            "finished": False,
        }
        return Prediction(group.update_attributes({KEY: own}))


def free_name(group: zarr.Group, now: datetime) -> str:
    """Return a name that nothing in a group has: the time."""
    stem = now.strftime("%Y%m%d-%H%M%S-%f")
    name, count = stem, 1
    while name in group:
        name, count = f"{stem}-{count}", count + 1
    return name


def stored_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group. Raises KeyError if it is none."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array.with_config({"write_empty_chunks": True})
