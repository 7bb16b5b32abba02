"""Models that learned in this workspace: what each learned from, and which one is in use."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import BaseZarrError

from napari_covseg.cases.case import now
from napari_covseg.cases.chunks import checksum
from napari_covseg.cases.store import (
    FORMAT,
    KEY,
    check_format,
    create_record,
    read_record,
    reading,
    write_record,
    writing,
)
from napari_covseg.cases.version import Curves, LearnedFrom, ModelState, ModelVersion, as_record, from_record
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError, ModelError

_log = logging.getLogger(__name__)
_AXES = {"losses": ("step",), "measured": ("measurement",), "held_out": ("measurement", "output")}
_HALF_MADE_FOR = 3600.0  # seconds after which nobody is still writing a model


class Versions:
    """The models of a workspace. A version never changes; only the decision about it does.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        self._place = workspace.models_folder
        self._workspace = workspace

    def list(self) -> list[ModelVersion]:
        """Return all versions, the oldest first; what cannot be read is left out and logged."""
        versions = []
        with reading("The list of models", self._workspace.path):
            folders = sorted(self._place.iterdir()) if "://" not in self._workspace.path else []
        for folder in folders:
            if not folder.is_dir() or folder.suffix == ".partial":
                continue
            try:
                versions.append(self.get(folder.name))
            except (CaseError, ModelError) as error:
                _log.warning("%s", error)
        return sorted(versions, key=lambda version: version.created)

    def get(self, version_id: str) -> ModelVersion:
        """Return a version by its id.

        Raises
        ------
        ModelError
            If there is none, or it is damaged.
        """
        group = self._group(version_id)
        try:
            own = check_format(group, "model")
            state = read_record(_array(group, "state"), "The decision")[0]
            return from_record(version_id, own, ModelState(int(state)))
        except (CaseError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(version_id) from error

    def __contains__(self, version_id: object) -> bool:
        """Whether there is a folder of this name, readable or not."""
        named = isinstance(version_id, str) and re.fullmatch(r"\w[\w.-]*", version_id)
        return bool(named and (self._place / str(version_id) / "zarr.json").exists())

    def weights(self, version_id: str) -> bytes:
        """Return the model file, byte for byte.

        Raises
        ------
        ModelError
            If there is no such version, or it is damaged.
        """
        group = self._group(version_id)
        try:
            values = read_record(_array(group, "weights"), "The weights")
            if checksum(values) != check_format(group, "model")["checksum"]:
                raise ValueError("not the file that was kept")
        except (CaseError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(version_id) from error
        return values.tobytes()

    def curves(self, version_id: str) -> Curves:
        """Return how the fine-tuning went. Raises ModelError as `weights`."""
        group = self._group(version_id)
        try:
            read = {name: read_record(_array(group, name), name) for name in _AXES if name in group}
        except (CaseError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(version_id) from error
        return Curves(**read)

    def add(
        self,
        base: str,
        parent: str,
        make: Callable[[str], tuple[bytes, str]],
        *,
        scores: dict[str, Any],
        learned_from: Mapping[str, LearnedFrom],
        curves: Curves | None = None,
    ) -> ModelVersion:
        """Keep a new model as proposed; it is listed only when all of it is written.

        Parameters
        ----------
        base, parent : str
        make : callable
            id -> (model file as bytes, card as JSON text).
        scores : dict
        learned_from : mapping of str to LearnedFrom
        curves : Curves, optional

        Raises
        ------
        CaseError
            If the disk is full or the workspace is read-only.
        """
        self._root("r+")  # a workspace behind a URL is refused here
        with writing("the new model", self._place):
            self._remove_leftovers()
            version_id = self._free_id(base)
            part = self._place / f"{version_id}.partial"
            data, card = make(version_id)
            own = {
                "kind": "model",
                "format": FORMAT,
                "base": base,
                "parent": parent,
                "card": card,
                "created": now().isoformat(),
                "scores": scores,
                "learned_from": {case: as_record(seen) for case, seen in learned_from.items()},
            }
            try:
                self._write(part, data, own, curves or Curves())
                part.rename(self._place / version_id)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
        return self.get(version_id)

    def keep(self, version_id: str) -> None:
        """Keep a version and make it the current one of its base. Raises ModelError or CaseError."""
        base = self.get(version_id).base
        self._decide(version_id, ModelState.KEPT)
        self.set_current(base, version_id)

    def discard(self, version_id: str) -> None:
        """Discard a version; was it current, its nearest kept ancestor is again."""
        version = self.get(version_id)
        self._decide(version_id, ModelState.DISCARDED)
        if self.current(version.base) == version_id:
            self.set_current(version.base, self._kept_ancestor(version))

    def current(self, base: str) -> str:
        """Return the id of the model in use in the place of `base`; `base` itself if there is none."""
        pointers = self._root("r").attrs.get(KEY, {})
        return str(pointers.get("current", {}).get(base, base)) if isinstance(pointers, dict) else base

    def set_current(self, base: str, version_id: str) -> None:
        """Use a kept version, or with `base` itself the model that the line began with.

        Raises
        ------
        ModelError
            If the version is not kept, or not of this base.
        CaseError
            If the disk is full or the workspace is read-only.
        """
        if version_id != base:
            version = self.get(version_id)
            if version.base != base or version.state != ModelState.KEPT:
                raise ModelError(f"The model {version_id} is not kept as a version of {base}: keep it first.")
        models = self._root("r+")
        own = models.attrs.get(KEY, {})
        pointers = dict(own.get("current", {})) if isinstance(own, dict) else {}
        pointers[base] = version_id
        with writing("the choice of a model", self._place):
            models.attrs[KEY] = {"kind": "models", "format": FORMAT, "current": pointers}

    def sides(self) -> dict[tuple[str, int], Literal["learned", "held-out"]]:
        """Return on which side each slice was that any version saw, discarded ones too."""
        sides: dict[tuple[str, int], Literal["learned", "held-out"]] = {}
        for version in self.list():
            for case, seen in version.learned_from.items():
                sides |= {(case, z): "learned" for z in seen.learned}
                sides |= {(case, z): "held-out" for z in seen.held_out}
        return sides

    def _write(self, folder: Path, data: bytes, own: dict[str, Any], curves: Curves) -> None:
        group = zarr.open_group(folder, mode="w")
        values = np.frombuffer(data, np.uint8)
        write_record(create_record(group, "weights", values.shape, np.uint8, ("byte",)), values, "the model")
        for name, axes in _AXES.items():
            curve: npt.NDArray[Any] = getattr(curves, name)
            if curve.size:
                write_record(create_record(group, name, curve.shape, curve.dtype, axes), curve, "the curves")
        create_record(group, "state", (1,), np.uint8, ("value",))  # zero: proposed
        group.attrs[KEY] = {**own, "checksum": checksum(values)}  # last: with it, it is a model

    def _decide(self, version_id: str, state: ModelState) -> None:
        array = _array(self._group(version_id), "state")
        write_record(array, np.array([state], np.uint8), "the decision about the model")

    def _kept_ancestor(self, version: ModelVersion) -> str:
        while version.parent in self:
            version = self.get(version.parent)
            if version.state == ModelState.KEPT:
                return version.id
        return version.base

    def _free_id(self, base: str) -> str:
        name = re.sub(r"[^\w.-]+", "-", base).strip("-.") or "model"
        number = 1
        while any((self._place / f"{name}-{number}{end}").exists() for end in ("", ".partial")):
            number += 1
        return f"{name}-{number}"

    def _remove_leftovers(self) -> None:
        """Remove what interrupted writes left, if nobody can still be at it."""
        for part in self._place.glob("*.partial"):
            with suppress(OSError):
                if now().timestamp() - part.stat().st_mtime > _HALF_MADE_FOR:
                    shutil.rmtree(part, ignore_errors=True)

    def _root(self, mode: Literal["r", "r+"]) -> zarr.Group:
        if mode == "r+" and "://" in self._workspace.path:
            raise CaseError(f"{self._workspace.path} can only be read: choose one on this computer.")
        with reading("The list of models", self._workspace.path):
            place: Any = f"{self._workspace.path}/models" if "://" in self._workspace.path else self._place
            return zarr.open_group(place, mode=mode)

    def _group(self, version_id: str) -> zarr.Group:
        if version_id not in self:
            raise ModelError(
                f"{self._workspace.path} has no model {version_id!r}: choose one from its list of models."
            )
        try:
            return zarr.open_group(self._place / version_id, mode="r+")
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, BaseZarrError) as error:
            raise self._damaged(version_id) from error

    def _damaged(self, version_id: str) -> ModelError:
        return ModelError(
            f"The model {self._place / version_id} is damaged or of a newer napari-covseg: "
            "make another version current, or restore it from a backup."
        )


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array.with_config({"write_empty_chunks": True})
