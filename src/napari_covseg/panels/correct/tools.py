"""The correction tools as a person meets them: name, key, what it does, and the call that does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from napari_covseg.edit.between import fill_between
from napari_covseg.edit.edit import Edit, Protection
from napari_covseg.edit.grow import grow
from napari_covseg.edit.hu_range import PRESETS, HuRange
from napari_covseg.edit.layers import add, subtract
from napari_covseg.edit.lungs import split_lungs
from napari_covseg.edit.relabel import relabel
from napari_covseg.edit.shape import clip_to_lungs, fill_holes, keep_largest, remove_islands, smooth
from napari_covseg.edit.snap import copy_to
from napari_covseg.errors import EditError
from napari_covseg.labels import Group

SMALLEST_MM2 = 25.0  # islands below this go, on a slice ...
SMALLEST_MM3 = 200.0  # ... and in the volume
SMOOTH_MM = 1.5
GROWN: dict[tuple[Group, int], HuRange] = {
    ("lesions", 1): HuRange(-800, 50),
    ("lesions", 2): PRESETS["ground-glass"],
    ("lesions", 3): PRESETS["consolidation"],
    ("lesions", 4): PRESETS["effusion"],
}
"""What a label grows over when the brush has no range of its own; lungs are air."""
AIR = HuRange(-1100, -500)

Labels = npt.NDArray[np.uint8]


class Limits(TypedDict):
    """The arguments that most tools share; see `Work`."""

    z: int | None
    protect: Protection
    progress: Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Work:
    """What a tool works on.

    Attributes
    ----------
    group : {"lungs", "lesions"}
    labels, lungs, other : ndarray of uint8, shape (z, y, x)
        The labels to change, the lungs, and the group that is not changed.
    voxels : ndarray of int16, shape (z, y, x)
    spacing : tuple of float, or None
        (z, y, x) in mm.
    z : int
        The slice on screen.
    volume : bool
        Work on the whole volume instead of the slice.
    value : int
        The label that is chosen.
    at : tuple of int, or None
        Voxel (z, y, x) of the click.
    hu_range : HuRange or None
        The range of the brush, None if it is not limited.
    corrected : tuple of int
        Slices that a person has corrected or accepted.
    protect : Protection
    progress : callable
        Takes steps done and steps in all; raises to stop the tool.
    """

    group: Group
    labels: Labels
    lungs: Labels
    other: Labels
    voxels: npt.NDArray[np.int16]
    spacing: tuple[float, float, float] | None
    z: int
    volume: bool
    value: int
    at: tuple[int, int, int] | None
    hu_range: HuRange | None
    corrected: tuple[int, ...]
    protect: Protection
    progress: Callable[[int, int], None]

    @property
    def limits(self) -> Limits:
        """Where the tools that know both slices and volumes work, and what they keep off."""
        z = None if self.volume else self.z
        return {"z": z, "protect": self.protect, "progress": self.progress}


@dataclass(frozen=True)
class Tool:
    """A tool with its button.

    Attributes
    ----------
    name : str
        What it is called in code and in the history.
    text : str
        On the button.
    key : str
        As napari writes it.
    does : str
        One sentence for the tooltip.
    run : callable
        Takes the `Work`, returns the `Edit`.
    click : bool
        Whether it works where one clicks.
    volume : bool
        Whether there is a version for the whole volume.
    always_volume : bool
        Whether it has no version for a slice.
    goes_on : bool
        Whether one wants to see the next slice afterwards.
    """

    name: str
    text: str
    key: str
    does: str
    run: Callable[[Work], Edit]
    click: bool = False
    volume: bool = True
    always_volume: bool = False
    goes_on: bool = False


def _islands(work: Work) -> Edit:
    smallest = SMALLEST_MM3 if work.volume else SMALLEST_MM2
    return remove_islands(work.labels, work.value, smallest, work.spacing, **work.limits)


def _relabel(work: Work) -> Edit:
    return relabel(
        work.labels, clicked(work), three_d=work.volume, protect=work.protect, progress=work.progress
    )


def _grow(work: Work) -> Edit:
    inside = work.group == "lesions" and work.value != 4 and bool(work.lungs.any())  # effusion lies beside
    return grow(
        work.labels,
        work.voxels,
        clicked(work),
        work.value,
        work.hu_range or GROWN.get((work.group, work.value), AIR),
        work.spacing,
        lungs=work.lungs if inside else None,
        three_d=work.volume,
        protect=work.protect,
        progress=work.progress,
    )


def _between(work: Work) -> Edit:
    one, other = ends(work.z, work.corrected)
    return fill_between(work.labels, one, other, work.spacing, protect=work.protect, progress=work.progress)


def _copy(work: Work) -> Edit:
    if work.z + 1 >= len(work.labels):
        raise EditError("This is the last slice: there is none to copy to.")
    return copy_to(work.labels, work.voxels, work.z, work.z + 1, work.spacing, protect=work.protect)


def _split(work: Work) -> Edit:
    if work.group != "lungs":
        raise EditError("Only lungs can be split into right and left: select the layer of the lungs.")
    return split_lungs(work.labels, work.spacing, voxels=work.voxels, **work.limits)


def _add(work: Work) -> Edit:
    value = work.value if work.group == "lesions" else None  # lungs take the side that is near
    return add(work.labels, work.other, work.spacing, value, **work.limits)


def ends(z: int, corrected: tuple[int, ...]) -> tuple[int, int]:
    """Return the two corrected slices between which a slice lies, or the gap beside a corrected one.

    Raises
    ------
    EditError
        If there is no such gap.
    """
    below = max((c for c in corrected if c < z), default=None)
    above = min((c for c in corrected if c > z), default=None)
    if z in corrected:
        if below is not None and z - below > 1:
            return below, z
        if above is not None and above - z > 1:
            return z, above
    elif below is not None and above is not None:
        return below, above
    raise EditError("There is nothing to fill in between here: correct a slice on either side first.")


def clicked(work: Work) -> tuple[int, int, int]:
    """Return where one has clicked; tools with `click` always have it."""
    assert work.at is not None
    return work.at


TOOLS: tuple[Tool, ...] = (
    Tool(
        "grow",
        "Grow",
        "G",
        "Click in a finding: what is connected, in the HU range and in the lungs gets the chosen label.",
        _grow,
        click=True,
    ),
    Tool(
        "fill between",
        "Between",
        "I",
        "Fill the slices between two corrected ones with shapes that pass from the one's to the other's.",
        _between,
        always_volume=True,
    ),
    Tool(
        "relabel",
        "Relabel",
        "W",
        "Click on a finding: ground-glass becomes consolidation, that becomes effusion, and so on.",
        _relabel,
        click=True,
    ),
    Tool(
        "copy to next",
        "Copy",
        "C",
        "Copy all labels to the next slice towards the head, drawn to the image there.",
        _copy,
        volume=False,
        goes_on=True,
    ),
    Tool("remove islands", "Islands", "D", "Erase small specks of the chosen label.", _islands),
    Tool(
        "keep largest",
        "Largest",
        "K",
        "Keep only the largest part of the chosen label.",
        lambda w: keep_largest(w.labels, w.value, **w.limits),
    ),
    Tool(
        "smooth",
        "Smooth",
        "S",
        "Round off the outline of the chosen label.",
        lambda w: smooth(w.labels, w.value, SMOOTH_MM, w.spacing, **w.limits),
    ),
    Tool(
        "fill holes",
        "Holes",
        "O",
        "Fill what the chosen label encloses.",
        lambda w: fill_holes(w.labels, w.value, w.spacing, **w.limits),
    ),
    Tool(
        "clip to lungs",
        "Clip",
        "U",
        "Erase findings outside of the lungs; effusion stays.",
        lambda w: clip_to_lungs(w.labels, w.lungs, w.spacing, **w.limits),
    ),
    Tool("split lungs", "Split", "J", "Tell the right lung from the left one.", _split),
    Tool("add", "Add", "Shift-A", "Label what the other layer labels: findings that the lungs lack.", _add),
    Tool(
        "subtract",
        "Sub",
        "Shift-S",
        "Erase the chosen label where the other layer has labels: lungs from effusion.",
        lambda w: subtract(w.labels, w.other, w.value, **w.limits),
    ),
)


def tool(name: str) -> Tool:
    """Return the tool called `name`; KeyError if there is none."""
    return {known.name: known for known in TOOLS}[name]
