"""Read a DICOM folder or a single DICOM file as a scan."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.folder import SUFFIXES, check_unread
from napari_covseg.scans.dicom.header import (
    SliceHeader,
    damaged,
    looks_like_dicom,
    read_slices,
    without_image,
)
from napari_covseg.scans.dicom.pixels import check_pixels, decode, is_white_at_zero
from napari_covseg.scans.dicom.series import (
    SeriesInfo,
    choose_series,
    list_series,
    series_of_file,
)
from napari_covseg.scans.dicom.stack import StackError, ordered, stored_affine
from napari_covseg.scans.dicom.xray import read_xray
from napari_covseg.scans.intensity import Census, Scaling, is_chest, to_int16, understand
from napari_covseg.scans.orientation import empty, geometry_notes
from napari_covseg.scans.scan import Format, Scan, Values

THREADS = min(4, os.cpu_count() or 1)
"""More would decode faster but hold more slices at a time beside the scan."""

MOST_NAMED = 8
"""Series that are named beside the one that is read."""

THINNEST, DENSEST = -900, 3071
"""HU of lung and of metal; a padding value between them may be a value of the body too."""


class Dicom(Format):
    """DICOM: a folder of slices or X-rays, of any names, or one of them."""

    name = "DICOM"
    suffixes = SUFFIXES

    def recognises(self, path: Path) -> bool:
        """Whether the first bytes are those of a DICOM file, whatever its name."""
        return looks_like_dicom(path)

    def read_folder(
        self,
        folder: Path,
        series: str | None = None,
        values: Values | None = None,
        found: Sequence[SeriesInfo] | None = None,
    ) -> Scan | None:
        """Read a series of the folder: the one called `series`, else the axial CT series with most slices.

        Where there is no CT it is an X-ray: one of the chest, from the front.

        `found` is what `list_series` said of the folder, if it was asked. Returns None if there is no
        DICOM image at all.

        Raises
        ------
        ScanError
            If the series is neither CT nor an X-ray, does not make a volume or is damaged;
            `NothingReadError` if there are no slices, but files that may be some.
        """
        found = list_series(folder) if found is None else found
        if not found:
            check_unread(folder)
            return None
        chosen = choose_series(folder, found, series)
        others = [info for info in found if info is not chosen]
        try:
            return _read(folder, chosen, _also("folder", others), values)
        except StackError as error:
            usable = [str(info) for info in others if info.modality == "CT" and info.slices > 1]
            if not usable:
                raise
            raise ScanError(
                f"{str(error)[:-1]}; or choose another series: {', or '.join(usable)}."
            ) from error

    def read(self, path: Path, values: Values | None = None, series: str | None = None) -> Scan:
        """Read one file as a scan: a slice, the frames of an enhanced file, an X-ray; see `Format.read`.

        `series` is one of the volumes of an enhanced file, as the notes call them.
        """
        headers = read_slices(path)
        if headers is None:  # it was a moment ago
            raise damaged(path)
        if not headers:
            raise without_image(path)
        found = series_of_file(path, headers)
        chosen = choose_series(path, found, series)
        others = [info for info in found if info is not chosen]
        return _read(path, chosen, _also("file", others), values)


def _also(where: str, others: list[SeriesInfo]) -> list[str]:
    """Name what else could have been read; of many the first few."""
    notes = [f"Also in the {where}: {info}." for info in others[:MOST_NAMED]]
    if len(others) > MOST_NAMED:
        notes.append(f"Also in the {where}: {len(others) - MOST_NAMED} more.")
    return notes


def _read(path: Path, info: SeriesInfo, notes: list[str], values: Values | None) -> Scan:
    if info.is_xray:
        if values not in (None, "grey"):
            raise ScanError(
                f"{path.name} is an X-ray, whose values are grey and never HU; do not say {values}."
            )
        return read_xray(path, info, notes, alone=not notes)
    for header in info.headers:
        check_pixels(header)
    slices = ordered(info.headers)
    affine = stored_affine(slices)
    shape = (len(slices), slices[0].rows, slices[0].columns)
    voxels, view = empty(shape, affine, np.int16)
    census = _fill(slices, view)
    if is_white_at_zero(slices[0]) and not is_chest(census):
        # Such values are HU as they are if they can be; else they were turned round to be shown so.
        census = _fill(slices, view, inverted=True)
        notes = [f"{path.name} is stored with white as zero: its values were turned round.", *notes]
    if census.low == census.high:
        raise ScanError(
            f"{path.name} holds the value {census.low:g} everywhere, so there is no picture in it; export "
            "the series again."
        )
    scaling = understand(census, values)
    if scaling.changes:
        for plane in view:
            to_int16(scaling.apply(plane), plane)
    notes = [*filter(None, [scaling.note]), *notes]
    first = slices[0]
    notes = [*filter(None, [_padding_note(first)]), *notes]
    measured = len(slices) > 1 or first.thickness is not None
    if not measured:
        notes = [
            *notes,
            f"{path.name} is one slice that does not say how thick it is: no volumes are computed from it.",
        ]
    if not first.stated_modality:
        notes = [_modality_note(path, scaling), *notes]
    scan = Scan.placed(
        voxels,
        shape,
        affine,
        measured=measured,
        intensity=scaling.intensity,
        name=path.stem if path.is_file() else path.resolve().name,
        path=str(path),
        patient_id=first.patient_id,
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        series=info.uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        sop_uids=tuple(header.sop_uid for header in slices),
        notes=(*geometry_notes(affine), *info.notes, *notes),
    )
    slices_reversed = scan.flips[scan.axes.index(0)]
    return replace(scan, sop_uids=scan.sop_uids[::-1]) if slices_reversed else scan


def _padding_note(header: SliceHeader) -> str:
    """Say that voxels became air which by their value may be tissue."""
    if header.padding is None:
        return ""
    low, high = sorted(end * header.slope + header.intercept for end in header.padding)
    if high < THINNEST or low > DENSEST:
        return ""
    values = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"Voxels of {values} HU are padding, as {header.path.name} says (PixelPaddingValue): they are air."


def _modality_note(path: Path, scaling: Scaling) -> str:
    """Say that the modality was missing, if the values are those of a chest CT.

    Raises
    ------
    ScanError
        If they are not.
    """
    if scaling.intensity != "HU":
        raise ScanError(
            f"{path.name} does not say that it is CT (no Modality) and its values are not HU of a chest; "
            "choose a CT series."
        )
    return f"{path.name} does not say that it is CT (no Modality); its values look like HU and are used so."


def _fill(slices: list[SliceHeader], view: npt.NDArray[np.int16], *, inverted: bool = False) -> Census:
    """Decode every slice into `view` (k, j, i) and count its values."""
    failed = threading.Event()

    def fill(k: int) -> Census:
        values = decode(slices[k], inverted=inverted)
        to_int16(values, view[k])
        return Census.of(values)

    def fill_some(first: int) -> Census:
        try:
            # Added up here: as many counts as slices, waiting for one thread, would outweigh the scan.
            return Census.sum(fill(k) for k in range(first, len(slices), THREADS) if not failed.is_set())
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            return Census.sum(pool.map(fill_some, range(THREADS)))
        except BaseException:
            failed.set()
            raise
