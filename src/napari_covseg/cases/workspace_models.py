"""Models that learned in this workspace: what each learned from, and which one is in use."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr

from napari_covseg.cases.case import now
from napari_covseg.cases.chunks import checksum
from napari_covseg.cases.store import (
    FORMAT,
    KEY,
    UNREADABLE,
    check_format,
    create_record,
    read_record,
    reading,
    write_record,
    writing,
)
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError, ModelError

_log = logging.getLogger(__name__)
_AXES = {"losses": ("step",), "measured": ("measurement",), "held_out": ("measurement", "output")}
_HALF_MADE_FOR = 3600.0  # seconds after which nobody is still writing a model


class ModelState(IntEnum):
    """What a person has decided about a model."""

    PROPOSED = 0
    KEPT = 1
    DISCARDED = 2


@dataclass(frozen=True)
class LearnedFrom:
    """What a model saw of one case.

    Attributes
    ----------
    revision : int
        The case's revision whose labels it saw.
    learned, held_out : tuple of int
        Slices it learned from, and slices that chose its weights.
    """

    revision: int
    learned: tuple[int, ...]
    held_out: tuple[int, ...]


@dataclass(frozen=True)
class WorkspaceModel:
    """A model of the workspace, but for its weights and curves.

    Attributes
    ----------
    id : str
    base : str
        Id of the model at the beginning of the line, which is not of this workspace.
    parent : str
        Id of the model that was fine-tuned.
    card : str
        The model's card as JSON text, for `models.card.ModelCard.from_json`.
    state : ModelState
    created : datetime
        UTC.
    scores : dict
        What was measured before and after, as JSON values.
    learned_from : dict of str to LearnedFrom
        By case id.
    """

    id: str
    base: str
    parent: str
    card: str
    state: ModelState
    created: datetime
    scores: dict[str, Any]
    learned_from: dict[str, LearnedFrom]


@dataclass(frozen=True, eq=False)
class Curves:
    """How a fine-tuning went.

    Attributes
    ----------
    losses : ndarray of float, shape (steps,)
    measured : ndarray of int, shape (m,)
        Steps at which the held-out slices were measured.
    held_out : ndarray of float, shape (m, outputs)
        Their Dice.
    """

    losses: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    measured: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    held_out: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))


class WorkspaceModels:
    """The models that learned in a workspace. None ever changes; only the decision about it does.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        self._place = workspace.models_folder
        self._workspace = workspace

    def list(self) -> list[WorkspaceModel]:
        """Return all models, the oldest first; what cannot be read is left out and logged."""
        models = []
        with reading("The list of models", self._workspace.path):
            folders = sorted(self._place.iterdir()) if "://" not in self._workspace.path else []
        for folder in folders:
            if not folder.is_dir() or folder.suffix == ".partial":
                continue
            try:
                models.append(self.get(folder.name))
            except (CaseError, ModelError) as error:
                _log.warning("%s", error)
        return sorted(models, key=lambda model: model.created)

    def get(self, model_id: str) -> WorkspaceModel:
        """Return a model by its id.

        Raises
        ------
        ModelError
            If there is none, or it is damaged.
        """
        with self._reading(model_id) as group:
            own = check_format(group, "model")
            state = read_record(_array(group, "state"), "The decision")[0]
            return WorkspaceModel(
                id=model_id,
                base=own["base"],
                parent=own["parent"],
                card=own["card"],
                state=ModelState(int(state)),
                created=datetime.fromisoformat(own["created"]).astimezone(UTC),
                scores=own["scores"],
                learned_from={
                    case: LearnedFrom(seen["revision"], tuple(seen["learned"]), tuple(seen["held_out"]))
                    for case, seen in own["learned_from"].items()
                },
            )

    def __contains__(self, model_id: object) -> bool:
        """Whether there is a folder of this name, readable or not."""
        named = isinstance(model_id, str) and re.fullmatch(r"\w[\w.-]*", model_id)
        return bool(named and (self._place / str(model_id) / "zarr.json").exists())

    def weights(self, model_id: str) -> bytes:
        """Return the model file, byte for byte.

        Raises
        ------
        ModelError
            If there is no such model, or it is damaged.
        """
        with self._reading(model_id) as group:
            values = read_record(_array(group, "weights"), "The weights")
            if checksum(values) != check_format(group, "model")["checksum"]:
                raise ValueError("not the file that was kept")
            return values.tobytes()

    def curves(self, model_id: str) -> Curves:
        """Return how the fine-tuning went. Raises ModelError as `weights`."""
        with self._reading(model_id) as group:
            return Curves(**{name: read_record(_array(group, name), name) for name in _AXES if name in group})

    def add(
        self,
        base: str,
        parent: str,
        make: Callable[[str], tuple[bytes, str]],
        *,
        scores: dict[str, Any],
        learned_from: Mapping[str, LearnedFrom],
        curves: Curves | None = None,
    ) -> WorkspaceModel:
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
            model_id = self._free_id(base)
            part = self._place / f"{model_id}.partial"
            data, card = make(model_id)
            own = {
                "kind": "model",
                "format": FORMAT,
                "base": base,
                "parent": parent,
                "card": card,
                "created": now().isoformat(),
                "scores": scores,
                "learned_from": {case: asdict(seen) for case, seen in learned_from.items()},
            }
            try:
                self._write(part, data, own, curves or Curves())
                part.rename(self._place / model_id)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
        return self.get(model_id)

    def keep(self, model_id: str) -> None:
        """Keep a model and make it the current one of its base. Raises ModelError or CaseError."""
        base = self.get(model_id).base
        self._decide(model_id, ModelState.KEPT)
        self.set_current(base, model_id)

    def discard(self, model_id: str) -> None:
        """Discard a model; was it current, its nearest kept ancestor is again."""
        model = self.get(model_id)
        self._decide(model_id, ModelState.DISCARDED)
        if self.current(model.base) == model_id:
            self.set_current(model.base, self._kept_ancestor(model))

    def current(self, base: str) -> str:
        """Return the id of the model in use in the place of `base`; `base` itself if there is none."""
        pointers = self._root("r").attrs.get(KEY, {})
        return str(pointers.get("current", {}).get(base, base)) if isinstance(pointers, dict) else base

    def set_current(self, base: str, model_id: str) -> None:
        """Use a kept model, or with `base` itself the model that the line began with.

        Raises
        ------
        ModelError
            If the model is not kept, or not of this base.
        CaseError
            If the disk is full or the workspace is read-only.
        """
        if model_id != base:
            model = self.get(model_id)
            if model.base != base or model.state != ModelState.KEPT:
                raise ModelError(f"The model {model_id} is not kept as a version of {base}: keep it first.")
        models = self._root("r+")
        own = models.attrs.get(KEY, {})
        pointers = dict(own.get("current", {})) if isinstance(own, dict) else {}
        pointers[base] = model_id
        with writing("the choice of a model", self._place):
            models.attrs[KEY] = {"kind": "models", "format": FORMAT, "current": pointers}

    def sides(self) -> dict[tuple[str, int], Literal["learned", "held-out"]]:
        """Return on which side each slice was that any model saw, discarded ones too."""
        sides: dict[tuple[str, int], Literal["learned", "held-out"]] = {}
        for model in self.list():
            for case, seen in model.learned_from.items():
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

    def _decide(self, model_id: str, state: ModelState) -> None:
        with self._reading(model_id) as group:
            array = _array(group, "state")
        write_record(array, np.array([state], np.uint8), "the decision about the model")

    def _kept_ancestor(self, model: WorkspaceModel) -> str:
        while model.parent in self:
            model = self.get(model.parent)
            if model.state == ModelState.KEPT:
                return model.id
        return model.base

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

    @contextmanager
    def _reading(self, model_id: str) -> Iterator[zarr.Group]:
        """Open a model's group; what cannot be made sense of in it is a ModelError."""
        if model_id not in self:
            raise ModelError(
                f"{self._workspace.path} has no model {model_id!r}: choose one from its list of models."
            )
        try:
            yield zarr.open_group(self._place / model_id, mode="r+")
        except (CaseError, OSError, *UNREADABLE, AttributeError) as error:
            raise ModelError(
                f"The model {self._place / model_id} is damaged or of a newer napari-covseg: "
                "make another version current, or restore it from a backup."
            ) from error


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array.with_config({"write_empty_chunks": True})
