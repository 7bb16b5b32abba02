"""The three layers of an open case, and what a person may change in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari import Viewer
from napari.layers import Image, Labels
from napari.utils.notifications import show_info
from qtpy.QtCore import QElapsedTimer

from napari_covseg.cases.case import Review
from napari_covseg.cases.open_case import OpenCase, Restored
from napari_covseg.edit.hu_range import HuRange, in_range
from napari_covseg.labels import GROUPS, Group
from napari_covseg.panels.keys import KEYS
from napari_covseg.panels.layers import (
    labels_layer,
    remove_layers,
    scan_layer,
    scan_layer_name,
    z_axis,
)
from napari_covseg.panels.strokes import Indices, Strokes
from napari_covseg.panels.undo_entries import SliceChange, tool_changes
from napari_covseg.scans.scan import METADATA_KEY, Scan

QUIET = 3000  # ms in which it is said once that accepted slices do not change


class CaseLayers:
    """Puts a case into a viewer, and tells the case what is painted there.

    Parameters
    ----------
    viewer : Viewer
    case : OpenCase
        Its arrays are what the layers draw and edit; nothing is copied.
    on_changed : callable
        Takes the slices in which a person has changed labels.
    instead_of : Image, optional
        A layer that shows the same scan already; it becomes the scan's layer.
    """

    def __init__(
        self,
        viewer: Viewer,
        case: OpenCase,
        on_changed: Callable[[list[int]], Any],
        instead_of: Image | None = None,
    ) -> None:
        self._viewer = viewer
        self._case = case
        self._on_changed = on_changed
        self.limits = Limits(case)
        self._said = QElapsedTimer()
        known = case.case
        shown = Scan.from_header(known.header, case.voxels)
        self.scan = self._scan_layer(instead_of, shown)
        self.labels: dict[Group, Labels] = {}
        self._strokes: dict[Group, Strokes] = {}
        self.scan.metadata[METADATA_KEY] = shown
        middle = self.scan not in viewer.layers
        if middle:
            viewer.add_layer(self.scan)
        self.bring_back()
        if middle:
            viewer.dims.set_point(z_axis(viewer), self.scan.data_to_world((len(case.voxels) // 2, 0, 0))[0])
            viewer.reset_view()

    def bring_back(self) -> bool:
        """Add the labels layers that are not in the viewer; return whether there were any."""
        missing = [group for group in GROUPS if group not in self.labels]
        for group in missing:
            layer = labels_layer(group, self._case.live[group], self._case.case.spacing, self.scan)
            layer.metadata[METADATA_KEY] = self.scan.metadata[METADATA_KEY]
            layer.editable = not self._case.read_only
            below = self.labels.get("lungs", self.scan)
            self._viewer.layers.insert(self._viewer.layers.index(below) + 1, layer)
            self.labels[group] = layer
            self._strokes[group] = self._follow(group, layer)
        return bool(missing)

    def remove(self) -> None:
        """Take the layers out of the viewer and stop following them."""
        for strokes in self._strokes.values():
            strokes.disconnect()
        self._strokes.clear()
        for layer in self.labels.values():
            layer.mode = "pan_zoom"  # emptied with a brush in the hand, the canvas can crash
        remove_layers(self._viewer, self.scan, *self.labels.values())
        self.labels.clear()

    def forget(self, layer: Any) -> None:
        """Let a labels layer go that was taken out of the viewer; its labels stay in the case."""
        for group, known in self.labels.items():
            if known is layer:
                self._strokes.pop(group).disconnect()
                del self.labels[group]
                return

    def rename(self) -> None:
        """Call the scan's layer what a person says that it is."""
        self.scan.name = scan_layer_name(self._case.case.name, self._case.appearance.kind)

    def redraw(self, changed: Iterable[int], on_screen: int) -> None:
        """Draw labels that are new in memory, only if one sees them.

        Parameters
        ----------
        changed : iterable of int
            Slices with new labels.
        on_screen : int
            The slice that is drawn.
        """
        flat = z_axis(self._viewer) not in self._viewer.dims.displayed
        if flat and on_screen not in set(changed):
            return
        for layer in self.labels.values():
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def add_model_step(self, entries: Mapping[Group, list[SliceChange]]) -> None:
        """Make what a model has changed, slice by slice, one step that Ctrl+Z takes back."""
        for group, strokes in self._strokes.items():
            strokes.add_model_step(entries[group])

    def write(
        self,
        group: Group,
        index: Indices,
        before: npt.NDArray[np.uint8],
        after: npt.NDArray[np.uint8],
        tool: str,
        *,
        spread: bool = False,
    ) -> int:
        """Change labels as one step of a person; see `Strokes.write`."""
        if group not in self._strokes:
            return 0
        return self._strokes[group].write(index, before, after, tool, spread=spread)

    def add_restored(self, changes: Iterable[Restored], numbers: Sequence[int]) -> None:
        """Make a restored state, which is in memory already, one step that Ctrl+Z takes back.

        Parameters
        ----------
        changes : iterable of Restored
        numbers : sequence of int
            Of the revisions that they are.
        """
        entries: dict[Group, list[SliceChange]] = {group: [] for group in GROUPS}
        for change in changes:
            shape = self._case.voxels.shape
            entries[change.group] += tool_changes(shape, change.index, change.before, change.after, "restore")
        for group, strokes in self._strokes.items():
            if entries[group]:
                strokes.add_step(entries[group], numbers)
        for layer in self.labels.values():
            layer.refresh()

    def name_brush(self, name: str) -> None:
        """Say what the brush is called while it is limited; empty when it is not."""
        for strokes in self._strokes.values():
            strokes.brush = name

    def say_accepted(self, slices: Sequence[int]) -> None:
        """Say that accepted slices do not change, and how to open them; once for a few strokes."""
        if len(slices) and (not self._said.isValid() or self._said.hasExpired(QUIET)):
            self._said.start()
            which = ", ".join(str(z + 1) for z in slices)
            show_info(
                f"Slice {which} is accepted, so nothing changes it: {KEYS['reopen']} opens the one on screen."
            )

    def _brushable(
        self, group: Group, before: npt.NDArray[np.uint8], after: Any, key: Any
    ) -> npt.NDArray[np.bool_] | None:
        accepted = self.limits.accepted
        if accepted.any():  # asked a dozen times in a stroke
            painted = np.unique(np.arange(len(accepted))[key[0]])
            self.say_accepted(painted[accepted[painted]].tolist())
        return self.limits.brushable(group, before, after, key)

    def _show_reopened(self, slices: npt.NDArray[np.intp]) -> None:
        """Say which accepted slices an undo is about to change; they may be far from the one on screen."""
        if len(slices):
            which = ", ".join(str(z + 1) for z in slices)
            show_info(f"Slice {which} was accepted; it has changed back and is open for review again.")

    def _scan_layer(self, instead_of: Image | None, shown: Scan) -> Image:
        drawn = scan_layer(
            self._case.voxels,
            self._case.case.name,
            shown.spacing,
            hu=shown.intensity == "HU",
            affine=shown.affine,
            kind=self._case.appearance.kind,
            window=shown.window,
        )
        if instead_of is None or instead_of.ndim != 3 or instead_of.multiscale:
            return drawn
        # The layer stays where it is in the list; its own copy of the voxels goes.
        instead_of.data = self._case.voxels
        instead_of.name = drawn.name
        instead_of.scale, instead_of.units = drawn.scale, drawn.units
        if METADATA_KEY not in instead_of.metadata:
            # Its voxels were laid by its transform, so that they are now upright and only moved.
            instead_of.rotate, instead_of.shear, instead_of.affine = np.eye(3), np.zeros(3), np.eye(4)
            instead_of.translate = drawn.translate
        instead_of.axis_labels = drawn.axis_labels
        instead_of.contrast_limits_range = drawn.contrast_limits_range
        instead_of.contrast_limits = drawn.contrast_limits
        return instead_of

    def _sees(self, layer: Labels, z: int) -> bool:
        """Whether who paints in a slice looks at it: a brush in 3-D or in another order paints more."""
        dims = self._viewer.dims
        if z_axis(self._viewer) in dims.displayed:
            return False
        return layer.n_edit_dimensions < 3 or z == round(float(self.scan.world_to_data(dims.point)[0]))

    def _follow(self, group: Group, layer: Labels) -> Strokes:
        limits, case = self.limits, self._case

        def changed(index: Indices, before: npt.NDArray[np.uint8], tool: str, spread: bool) -> int:
            z, y, x = index
            slices = np.unique(z).tolist()
            unseen = slices if spread else [z for z in slices if not self._sees(layer, z)]
            number = case.record(group, (z, y, x), before, tool, spread=unseen)
            self._on_changed(slices)
            return number

        def taken_back(
            index: Indices, before: npt.NDArray[np.uint8], numbers: Sequence[int], again: bool
        ) -> None:
            z, y, x = index
            self._show_reopened(np.unique(z[limits.accepted[z]]))
            case.take_back(group, (z, y, x), before, numbers, again=again)
            self._on_changed(np.unique(z).tolist())

        def model_step(slices: list[int]) -> None:
            self._case.mark_changed(group, slices)
            self._on_changed(slices)

        return Strokes(
            layer,
            changed,
            taken_back,
            model_step,
            brushable=lambda before, after, key: self._brushable(group, before, after, key),
            allowed=lambda before, after, key: limits.allowed(group, before, after, key),
        )


class Limits:
    """Protects voxels of a case from brushes and tools.

    Parameters
    ----------
    case : OpenCase

    Attributes
    ----------
    locked : dict of set of int
        Label values, by group, that nothing changes from or to.
    hu_range : HuRange or None
        Brush and eraser change only voxels in it.
    """

    def __init__(self, case: OpenCase) -> None:
        self._case = case
        self.locked: dict[Group, set[int]] = {group: set() for group in GROUPS}
        self.hu_range: HuRange | None = None

    @property
    def accepted(self) -> npt.NDArray[np.bool_]:
        """Which slices a person has accepted, (z,)."""
        return np.asarray(self._case.review == Review.ACCEPTED)

    def allowed(
        self, group: Group, before: npt.NDArray[np.uint8], after: Any, key: Any
    ) -> npt.NDArray[np.bool_] | None:
        """Return where a change is allowed, None if everywhere.

        Parameters
        ----------
        group : {"lungs", "lesions"}
        before : ndarray of uint8
            Values there now.
        after : int or ndarray of uint8
            Values to come.
        key : tuple
            Three slices, or index arrays (z, y, x) with the shape of `before`.
        """
        forbidden = None
        locked = self.locked[group]
        if locked:
            values = list(locked)
            forbidden = np.isin(before, values) | np.isin(after, values)
        accepted = self.accepted[key[0]]
        if accepted.any():
            shut = accepted.reshape(-1, 1, 1) if isinstance(key[0], slice) else accepted
            shut = np.broadcast_to(shut, before.shape)
            forbidden = shut if forbidden is None else forbidden | shut
        return None if forbidden is None else ~forbidden

    def brushable(
        self, group: Group, before: npt.NDArray[np.uint8], after: Any, key: Any
    ) -> npt.NDArray[np.bool_] | None:
        """Return where a brush may paint, None if everywhere; as `allowed`, and within the HU range."""
        allowed = self.allowed(group, before, after, key)
        if self.hu_range is None:
            return allowed
        inside = in_range(self._case.voxels[key], self.hu_range)
        return np.asarray(inside if allowed is None else allowed & inside)
