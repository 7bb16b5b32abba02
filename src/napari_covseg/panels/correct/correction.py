"""Correcting an open case: brush and tools of one viewer, whoever asks (a button or a key)."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari import Viewer
from napari.layers import Image, Labels
from napari.utils.colormaps import Colormap
from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from napari_covseg.cases.case import is_reviewed
from napari_covseg.edit.edit import Edit, Protection
from napari_covseg.edit.hu_range import PRESETS, HuRange
from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import Progress
from napari_covseg.labels import GROUPS, Group, painted_with
from napari_covseg.panels.background import Abandoned, errors_shown, in_background
from napari_covseg.panels.correct.tools import Tool, Work, tool
from napari_covseg.panels.layers import add_aid, placed_like, remove_layers, voxel_at
from napari_covseg.panels.napari_private import hide_brush_box
from napari_covseg.panels.preferences import prefer, preferred
from napari_covseg.panels.session import Session

BRUSH_STEP = 1.25  # from one size to the next
RANGE_LAYER = "HU range"
RANGE_COLOUR = (0.1, 0.85, 0.75, 1.0)
RANGE_OPACITY = 0.35
CLEAR = (0.0, 0.0, 0.0, 0.0)


class Correction(QObject):
    """Brush, range and tools.

    Parameters
    ----------
    session : Session

    Signals
    -------
    changed
        Another label, tool, size, range or layer is chosen.
    working : str
        The tool that runs over the volume, empty when it has ended.
    progressed : Progress
    taken
        Brush or tool is in the hand, and no ruler any more.
    """

    changed = Signal()
    taken = Signal()
    working = Signal(str)
    progressed = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.volume = False
        self.limited = False
        self.hu_range = kept_range()
        self._expected = 0  # the label that the model in use writes
        self.clicking = ""  # the tool that waits for clicks
        self.running = ""
        self._stop = False
        self._overlay = HuOverlay(session.viewer)
        hide_brush_box(session.viewer)
        session.viewer.layers.selection.events.active.connect(self._on_active)
        session.viewer.mouse_drag_callbacks.append(self._on_mouse)
        session.case_changed.connect(self._on_case_changed)

    # --- what is chosen -----------------------------------------------------------

    @property
    def group(self) -> Group:
        """The labels that are worked on: those of the selected layer, else the lesions."""
        active = self._session.viewer.layers.selection.active
        for group, layer in self._layers().items():
            if layer is active:
                return group
        return "lesions"

    @property
    def layer(self) -> Labels | None:
        """The layer that is worked on, None without a case."""
        return self._layers().get(self.group)

    @property
    def value(self) -> int:
        """The label that is chosen."""
        layer = self.layer
        return int(layer.selected_label) if layer is not None else 0

    @property
    def mode(self) -> str:
        """What napari's mouse does on the layer, for example "paint"."""
        layer = self.layer
        return str(layer.mode) if layer is not None else ""

    @property
    def brush_mm(self) -> float:
        """Diameter of the brush in mm; in pixels for pictures."""
        layer = self.layer
        return float(layer.brush_size) * self._pixel() if layer is not None else 0.0

    @brush_mm.setter
    def brush_mm(self, size: float) -> None:
        layer = self.layer
        if layer is not None:
            layer.brush_size = max(1.0, round(size / self._pixel()))
            prefer(self._brush_name(), float(size))
            self.changed.emit()

    def scale_brush(self, steps: int) -> None:
        """Make the brush larger, or smaller with a negative number, by at least a pixel each."""
        layer = self.layer
        if layer is not None:
            size = float(layer.brush_size)
            scaled = round(size * BRUSH_STEP**steps)
            self.brush_mm = max(1, scaled if scaled != size else size + steps) * self._pixel()

    def choose_label(self, value: int) -> None:
        """Paint with a label from now on."""
        layer = self.layer
        if layer is not None and value in {label.value for label in GROUPS[self.group]}:
            layer.selected_label = value
            self.changed.emit()

    def expect(self, outputs: tuple[str, ...]) -> None:
        """Paint what the model in use writes, until a person chooses another label.

        Parameters
        ----------
        outputs : tuple of str
            Of the model.
        """
        lesions, value = self._layers().get("lesions"), painted_with(outputs)
        if lesions is not None and value and value != self._expected:
            self._expected = lesions.selected_label = value
            self.changed.emit()

    def paint(self, mode: str) -> None:
        """Take napari's "paint" or "erase", or put it away if it is in the hand."""
        if not self._session.can_edit:
            return
        self._session.bring_back_layers()
        layer = self.layer
        assert layer is not None
        self.clicking = ""
        self.taken.emit()
        self._select(layer)
        layer.mode = "pan_zoom" if self.mode == mode else mode
        self.changed.emit()

    def lock(self, value: int, locked: bool) -> None:
        """Protect a label of the group from every change, or free it."""
        layers = self._session.layers
        if layers is not None:
            values = layers.limits.locked[self.group]
            values.add(value) if locked else values.discard(value)
            self.changed.emit()

    def is_locked(self, value: int) -> bool:
        """Return whether a label of the group is protected."""
        layers = self._session.layers
        return layers is not None and value in layers.limits.locked[self.group]

    def set_volume(self, volume: bool) -> None:
        """Work on the whole volume, or on the slice; the brush too."""
        self.volume = volume
        for layer in self._layers().values():
            layer.n_edit_dimensions = 3 if volume else 2
        self.changed.emit()

    def set_range(self, limited: bool, hu_range: HuRange | None = None) -> None:
        """Limit brush and eraser to a HU range, which is drawn on the image meanwhile."""
        self.limited = limited
        if hu_range is not None:
            self.hu_range = hu_range
            prefer("brush_hu", [hu_range.low, hu_range.high])
        layers = self._session.layers
        if layers is not None:
            layers.limits.hu_range = self.hu_range if limited else None
            layers.name_brush("HU-range" if limited else "")
            if limited:
                self._overlay.show(layers.scan, self.hu_range.low, self.hu_range.high)
            else:
                self._overlay.hide()
        self.changed.emit()

    # --- tools --------------------------------------------------------------------

    def use(self, name: str) -> None:
        """Run a tool, or have it wait for clicks; a second time puts it away."""
        chosen = tool(name)
        self.taken.emit()
        if not chosen.click:
            self.run(chosen)
            return
        layer, again = self.layer, self.clicking == name
        if layer is not None and not again:
            layer.mode = "pan_zoom"
            self._select(layer)
        self.clicking = "" if again else name
        self.changed.emit()

    def put_away(self) -> None:
        """Take no tool in the hand."""
        self.clicking = ""
        if self.layer is not None:
            self.layer.mode = "pan_zoom"
        self.changed.emit()

    def run(self, chosen: Tool, at: tuple[int, int, int] | None = None) -> None:
        """Run a tool: on a slice at once, over the volume beside the viewer's thread.

        Parameters
        ----------
        chosen : Tool
        at : tuple of int, optional
            Voxel (z, y, x) of a click.
        """
        if not self._session.can_edit or self.running:
            return
        volume = chosen.always_volume or (self.volume and chosen.volume)
        if not volume and self._session.slice_to_change() is None:
            return
        self._session.bring_back_layers()
        self._stop = False
        work = self._work(chosen, at, volume=volume)
        if not work.volume:
            with errors_shown():
                self._write(work, chosen.run(work), chosen)
            return
        self.running = chosen.name
        self.working.emit(chosen.name)
        in_background(
            lambda: chosen.run(work),
            lambda edit: self._ended(work, edit, chosen),
            lambda _: self._finish(),
        )

    def cancel(self) -> None:
        """Stop the tool that runs; it changes nothing then."""
        self._stop = True

    def _work(self, chosen: Tool, at: tuple[int, int, int] | None, *, volume: bool) -> Work:
        session = self._session
        case, layers, group = session.case, session.layers, self.group
        assert case is not None and layers is not None
        limits = layers.limits
        return Work(
            group=group,
            labels=case.live[group],
            lungs=case.live["lungs"],
            other=case.live["lungs" if group == "lesions" else "lesions"],
            voxels=case.voxels,
            spacing=case.case.spacing,
            z=session.slice_on_screen if at is None else at[0],
            volume=volume,
            value=self.value,
            at=at,
            hu_range=self.hu_range if self.limited else None,
            corrected=tuple(np.flatnonzero(is_reviewed(case.review)).tolist()),
            protect=Protection(frozenset(limits.locked[group]), limits.accepted),
            progress=self._on_progress,
        )

    def _on_progress(self, done: int, total: int) -> None:
        if self._stop:
            raise Abandoned
        if self.running:
            self.progressed.emit(Progress(done, total, "steps"))

    def _ended(self, work: Work, edit: Edit, chosen: Tool) -> None:
        self._finish()
        case = self._session.case
        if case is not None and case.live[work.group] is work.labels and not self._stop:
            self._write(work, edit, chosen)

    def _finish(self) -> None:
        self.running = ""
        self.working.emit("")

    def _write(self, work: Work, edit: Edit, chosen: Tool) -> None:
        assert self._session.layers is not None
        # only of the slice on screen the person sees at once what the tool has made of it
        spread = work.volume or chosen.goes_on
        written = self._session.layers.write(
            work.group, edit.index, edit.before, edit.after, edit.tool, spread=spread
        )
        if written:
            if chosen.goes_on:
                self._session.go_to(work.z + 1)
            return
        if edit.held and not work.volume and self._session.layers.limits.accepted[work.z]:
            self._session.layers.say_accepted([work.z])
            return
        why = " There are locked labels or accepted slices." if edit.held else ""
        show_info(f"{chosen.text}: nothing to change here.{why}")

    # --- what happens in the viewer -------------------------------------------------

    def _on_mouse(self, viewer: Any, event: Any) -> None:
        image = self._session.scan_image()
        if not self.clicking or image is None or event.button != 1 or viewer.dims.ndisplay != 2:
            return
        voxel = voxel_at(image, event.position)
        if voxel is not None:
            event.handled = True  # the picture does not move
            self.run(tool(self.clicking), voxel)

    def _on_active(self, event: Any = None) -> None:
        selected = self.layer is self._session.viewer.layers.selection.active
        if selected and self.mode not in ("", "pan_zoom"):  # else one drag would grow, or measure, and paint
            self.clicking = ""
            self.taken.emit()
        self.changed.emit()

    def _on_case_changed(self) -> None:
        self.cancel()
        self.clicking = ""
        self._overlay.hide()
        self.limited = False
        for layer in self._layers().values():
            for name in ("mode", "brush_size", "selected_label"):
                getattr(layer.events, name).connect(self._on_active)
            if size := preferred(self._brush_name(), 0.0):
                layer.brush_size = max(1.0, round(size / self._pixel()))
        self._expected = 0
        self.set_volume(self.volume)

    def _layers(self) -> dict[Group, Labels]:
        return self._session.layers.labels if self._session.layers is not None else {}

    def _select(self, layer: Labels) -> None:
        self._session.viewer.layers.selection.active = layer

    def _brush_name(self) -> str:
        case = self._session.case
        return "brush_pixels" if case is not None and case.case.spacing is None else "brush_mm"

    def _pixel(self) -> float:
        """Return the size in mm that napari's brush counts in."""
        case = self._session.case
        spacing = case.case.spacing if case is not None else None
        return min(spacing if self.volume else spacing[1:]) if spacing is not None else 1.0


def kept_range() -> HuRange:
    """Return the range that was limited to last."""
    first = next(iter(PRESETS.values()))
    try:
        low, high = (int(end) for end in preferred("brush_hu", [first.low, first.high]))
        return HuRange(low, high)
    except (ValueError, TypeError, CovsegError):
        return first


class HuOverlay:
    """The HU range of the brush, in a layer over the scan that is clear elsewhere.

    It draws the scan's own voxels through a colour map, so that another range or another
    slice costs nothing but drawing.

    Parameters
    ----------
    viewer : Viewer
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layer: Image | None = None

    @property
    def layer(self) -> Image | None:
        """The layer, None while nothing is drawn."""
        return self._layer if self._layer in self._viewer.layers else None

    def show(self, scan: Image, low: int, high: int) -> None:
        """Draw the range from `low` to `high`, both included, over a scan."""
        limits = (low - 0.5, high + 0.5)
        layer = self.layer
        if layer is None:
            self._layer = layer = self._add(scan)
        range_low, range_high = layer.contrast_limits_range
        layer.contrast_limits_range = min(range_low, limits[0]), max(range_high, limits[1])
        layer.contrast_limits = limits
        layer.visible = True

    def hide(self) -> None:
        """Draw nothing."""
        remove_layers(self._viewer, self._layer)
        self._layer = None

    def _add(self, scan: Image) -> Image:
        layer = Image(
            scan.data,
            name=RANGE_LAYER,
            colormap=Colormap([RANGE_COLOUR] * 2, name="covseg range", low_color=CLEAR, high_color=CLEAR),
            contrast_limits=(-1, 1),
            opacity=RANGE_OPACITY,
            blending="translucent",
            **placed_like(scan),
        )
        add_aid(self._viewer, layer, over=scan)
        return layer
