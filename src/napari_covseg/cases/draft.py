"""A revision on its way to the disk: what the viewer's thread notes down in no time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.difference import Difference, difference
from napari_covseg.cases.revision import Packed, Record, ReviewChange, Revision
from napari_covseg.labels import GROUPS, Group

SliceState = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]
"""Labels and touched of one slice, (y, x) each."""
StateOf = Callable[[Group, int], SliceState]


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels of a volume that have changed.

    Attributes
    ----------
    group : {"lungs", "lesions"}
    flat : ndarray of int, shape (n,)
        Positions in the flattened volume, in any order; of the same position the first counts.
    before : ndarray of uint8, shape (n,), or None
        None if it has to be looked up in what is on disk.
    after : ndarray of uint8, shape (n,)
    touched_before : ndarray of bool, shape (n,)
    touched_after : ndarray of bool, shape (n,), or None
        None if all are a person's now.
    """

    group: Group
    flat: npt.NDArray[np.integer]
    before: npt.NDArray[np.uint8] | None
    after: npt.NDArray[np.uint8]
    touched_before: npt.NDArray[np.bool_]
    touched_after: npt.NDArray[np.bool_] | None = None

    def split(self, slice_size: int, state_of: StateOf) -> Iterator[Difference]:
        """Yield what really changes, slice by slice."""
        flat, first = np.unique(self.flat, return_index=True)
        slices = flat // slice_size
        bounds = np.flatnonzero(np.diff(slices, prepend=-1, append=-1))
        for begin, end in pairwise(bounds):
            z, chosen = int(slices[begin]), first[begin:end]
            index = (flat[begin:end] - z * slice_size).astype(np.uint32)
            if self.before is None:
                before = state_of(self.group, z)[0].reshape(-1)[index]
            else:
                before = self.before[chosen]
            after, was = self.after[chosen], self.touched_before[chosen]
            persons = np.ones_like(was) if self.touched_after is None else self.touched_after[chosen]
            differs = (before != after) | (was != persons)
            columns = (index, before, after, was, persons)
            yield Difference(self.group, z, *(column[differs] for column in columns))


@dataclass(frozen=True, eq=False)
class Slices:
    """Whole slices of the volume that have changed in a way that only a comparison shows.

    Attributes
    ----------
    group : {"lungs", "lesions"}
    slices : tuple of int
    labels : ndarray of uint8, shape (z, y, x)
        The live labels.
    touched : ndarray of bool, shape (z, y, x)
    """

    group: Group
    slices: tuple[int, ...]
    labels: npt.NDArray[np.uint8]
    touched: npt.NDArray[np.bool_]

    def split(self, slice_size: int, state_of: StateOf) -> Iterator[Difference]:
        """Yield what differs from what is on disk, slice by slice."""
        for z in self.slices:
            was = state_of(self.group, z)
            yield difference(self.group, z, was, (self.labels[z].copy(), was[1]))


@dataclass(frozen=True, eq=False)
class Ready:
    """A change that was packed before."""

    part: Packed

    def split(self, slice_size: int, state_of: StateOf) -> Iterator[Difference]:
        """Yield it."""
        yield self.part.unpack()


AnyChange = Voxels | Slices | Ready


@dataclass(eq=False)
class Draft:
    """A revision that is not, or not wholly, on disk.

    The viewer's thread appends to `changes`, `review` and what counts them; the writer's
    takes changes out and packs them.

    Attributes
    ----------
    number : int
    when : datetime
    who, tool, run_id, note : str
        As in `Revision`.
    changes : deque of Voxels, Slices or Ready
        Those that are not packed.
    review : list of (int, int, int)
        (slice, state before, state after).
    packed : list of Packed
    size : int
        Bytes of what is packed.
    growing : bool
        Whether more may come: a model's write grows until something else happens.
    """

    number: int
    when: datetime
    who: str
    tool: str
    run_id: str = ""
    note: str = ""
    growing: bool = False
    changes: deque[AnyChange] = field(default_factory=deque)
    review: list[ReviewChange] = field(default_factory=list)
    packed: list[Packed] = field(default_factory=list)
    groups: set[Group] = field(default_factory=set)
    slices: set[int] = field(default_factory=set)
    voxels: int = 0
    size: int = 0

    def add(self, change: Voxels | Slices, slices: Iterable[int]) -> None:
        """Note a change down, in the viewer's thread."""
        self.groups.add(change.group)
        self.slices.update(slices)
        self.voxels += len(change.flat) if isinstance(change, Voxels) else 0
        self.changes.append(change)

    def record(self) -> Record:
        """Return what is packed, to be written."""
        return Record(
            number=self.number,
            when=self.when,
            who=self.who,
            tool=self.tool,
            parts=tuple(self.packed),
            review=tuple(self.review),
            run_id=self.run_id,
            note=self.note,
        )

    def summary(self) -> Revision:
        """Return what is known of it before it is packed: voxels may turn out not to have changed."""
        return Revision(
            number=self.number,
            when=self.when,
            who=self.who or "user",
            tool=self.tool,
            groups=tuple(group for group in GROUPS if group in self.groups),
            slices=tuple(sorted(self.slices | {z for z, _, _ in self.review})),
            voxels=self.voxels,
            run_id=self.run_id,
            note=self.note,
        )
