"""Read one DICOM X-ray as a scan of one slice: grey values, how it is to be shown, what its file says of it.

Modality and VOI look-up tables are applied by pydicom to the stored values, which `pixels` decodes. A
window in a straight line stays what it is, a range to show: all values are kept. Only a curve (a sigmoid,
a table) changes them, because no range can stand for it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.header import SliceHeader, damaged
from napari_covseg.scans.dicom.pixels import is_white_at_zero, stored_values
from napari_covseg.scans.dicom.series import SeriesInfo
from napari_covseg.scans.scan import Scan, Voxels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MOST_PIXELS = 1 << 25
"""In one X-ray; the finest detectors and longest films have half of it. More comes from a damaged header."""

FULL = 65535
"""The highest grey value that a scan holds."""

SAMPLED = 1 << 18
"""So many values are enough to say where most lie."""

SHOWN = (0.005, 0.995)
"""Between these shares of its values an X-ray is shown whose file names no window."""

SIDES = {"A": "front", "P": "back", "R": "right", "L": "left", "H": "head", "F": "feet"}

_SAID = (
    "BitsStored ImagerPixelSpacing ModalityLUTSequence NominalScannedPixelSpacing PatientOrientation "
    "PhotometricInterpretation PixelRepresentation PixelSpacing PixelSpacingCalibrationType "
    "PresentationIntentType PresentationLUTShape RescaleIntercept RescaleSlope VOILUTFunction VOILUTSequence "
    "WindowCenter WindowWidth"
).split()


Meant = npt.NDArray[np.bool_] | None
"""Where a picture is no padding, None if it has none; shape (rows, columns)."""


@dataclass(frozen=True)
class _Grey:
    """Grey values on their way from the file to the screen.

    Attributes
    ----------
    values : ndarray, shape (rows, columns)
    ends : tuple of float
        The least and greatest value that there may be.
    window : tuple of float, or None
        The values to be shown black and white.
    facts : tuple of str
        What was done.
    """

    values: npt.NDArray[Any]
    ends: tuple[float, float]
    window: tuple[float, float] | None = None
    facts: tuple[str, ...] = ()


def read_xray(path: Path, info: SeriesInfo, notes: list[str], *, alone: bool) -> Scan:
    """Read an X-ray that `choose_series` chose of a folder or file; `alone` says that there are no others.

    Raises
    ------
    ScanError
        If it is in colour, damaged, too large or even.
    """
    header = info.headers[0]
    if header.rows * header.columns > MOST_PIXELS:
        raise ScanError(
            f"{header.path.name} claims {header.columns} x {header.rows} pixels, which no X-ray has; copy it "
            "again from where it came from."
        )
    stored, padding = stored_values(header)
    meant = None if padding is None or not padding.any() else ~padding
    inside = _inside(stored, meant)
    if not inside.size or inside.min() == inside.max():
        raise ScanError(
            f"{header.path.name} holds one value everywhere, so there is no picture in it; export the X-ray "
            "again."
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # pydicom's, of numbers that are written oddly
            dataset = _dataset(header)
            grey = _shown(header, stored, meant, dataset)
            voxels, window = _as_voxels(grey, meant)
            spacing, how_large = _pixel_size(header, dataset)
            facts = (_what(header), *_orientation(dataset), how_large, *grey.facts)
            notes = [*_remarks(header, dataset), *notes]
    except MemoryError:
        raise
    except Exception as error:  # values are converted here, so mangled ones fail in any way
        raise damaged(header.path) from error
    affine = np.diag([spacing[1], spacing[0], 1.0, 1.0]) if spacing else np.eye(4)
    return Scan.placed(
        voxels[np.newaxis],
        (1, header.rows, header.columns),
        affine,
        measured=False,  # a shadow has a size at the detector, and no depth
        intensity="grey",
        stated=_kind(header),
        window=window,
        facts=facts,
        name=_name(path, info, alone=alone),
        path=str(path),
        patient_id=header.patient_id,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        series=info.uid,
        frame_of_reference_uid=header.frame_of_reference_uid,
        sop_uids=(header.sop_uid,),
        notes=(*info.notes, *notes),
    )


def _inside(values: npt.NDArray[Any], meant: Meant) -> npt.NDArray[Any]:
    """Return the values that are no padding."""
    return values if meant is None else values[meant]


def _dataset(header: SliceHeader) -> Dataset:
    """Read what pydicom needs, of a file whose elements are known to be whole."""
    from pydicom import dcmread  # here, because it takes long to load and most scans do not need it

    return dcmread(header.path, stop_before_pixels=True, force=True, specific_tags=[*_SAID])


# --- from stored values to what is shown --------------------------------------------------------------


def _shown(header: SliceHeader, stored: npt.NDArray[Any], meant: Meant, dataset: Dataset) -> _Grey:
    """Apply modality LUT, window or VOI LUT, and the polarity, in DICOM's order."""
    bits = header.bits_stored
    ends = (-(1 << bits - 1), (1 << bits - 1) - 1) if header.signed else (0, (1 << bits) - 1)
    values = np.clip(stored.astype(np.int64 if bits > 31 else np.int32), *ends)
    grey = _rescaled(_Grey(values, ends), dataset)
    grey = _fitting(_windowed(grey, meant, dataset), meant)
    said = str(dataset.get("PresentationLUTShape", "")).upper()
    if not is_white_at_zero(header) and said != "INVERSE":  # both say the same, once
        return grey
    low, high = grey.window or grey.ends
    about = int(sum(grey.ends))
    fact = f"White is stored as zero ({header.photometric}): turned round, air is black."
    return replace(
        grey, values=about - grey.values, window=(about - high, about - low), facts=(*grey.facts, fact)
    )


def _rescaled(grey: _Grey, dataset: Dataset) -> _Grey:
    from pydicom.pixels.processing import apply_modality_lut

    if dataset.get("ModalityLUTSequence"):
        bits = _widen(dataset.ModalityLUTSequence[0])
        values = apply_modality_lut(grey.values, dataset)
        return _Grey(values.astype(np.int32), (0, (1 << bits) - 1), facts=(f"Modality LUT of {bits} bits.",))
    slope, intercept = _numbers(dataset, "RescaleSlope", 1), _numbers(dataset, "RescaleIntercept", 1)
    if slope is None or intercept is None or (slope[0], intercept[0]) == (1.0, 0.0):
        return grey
    low, high = sorted(end * slope[0] + intercept[0] for end in grey.ends)
    return _Grey(apply_modality_lut(grey.values, dataset), (low, high))


def _windowed(grey: _Grey, meant: Meant, dataset: Dataset) -> _Grey:
    """Find the range to show; a curve is applied instead. Several alternatives: the first, a window first."""
    from pydicom.pixels.processing import apply_voi, apply_windowing

    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    window = _numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth")
    if window[0] and window[1]:
        centre, width = window[0][0], window[1][0]
        words = f"centre {centre:g}, width {width:g}"
        if function == "SIGMOID" and width > 0:
            dataset.BitsStored, dataset.PixelRepresentation = 16, 0  # as fine as a scan can hold
            for name in ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"):
                dataset.pop(name, None)  # is applied; else it would stretch the range
            values = np.rint(apply_windowing(grey.values, dataset))
            fact = f"Values are those behind the file's sigmoid window ({words})."
            return _Grey(values.astype(np.int32), (0, FULL), (0, FULL), (*grey.facts, fact))
        if found := _range(centre, width, exact=function == "LINEAR_EXACT"):
            inside = _inside(grey.values, meant)
            low, high = inside.min(), inside.max()
            if found[0] < high and found[1] > low:
                fact = f"Shown in the file's window ({words})."
                return replace(grey, window=found, facts=(*grey.facts, fact))
    if dataset.get("VOILUTSequence"):
        bits = _widen(dataset.VOILUTSequence[0])
        values = apply_voi(np.rint(grey.values).astype(np.int32), dataset).astype(np.int32)
        fact = f"Values are those behind the file's VOI LUT of {bits} bits."
        return _Grey(values, (0, (1 << bits) - 1), (0, (1 << bits) - 1), (*grey.facts, fact))
    inside = _inside(grey.values, meant).ravel()
    low, high = np.quantile(inside[:: 1 + inside.size // SAMPLED], SHOWN).tolist()
    fact = "Shown as 99 % of its values lie: its file names no window that shows them."
    return replace(grey, window=(low, high), facts=(*grey.facts, fact))


def _range(centre: float, width: float, *, exact: bool) -> tuple[float, float] | None:
    """Return the values shown black and white, None if there are none: PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if not exact:
        centre, width = centre - 0.5, width - 1
    return (centre - width / 2, centre + width / 2) if width > 0 else None


def _fitting(grey: _Grey, meant: Meant) -> _Grey:
    """Return whole numbers that a scan can hold: what has fractions or reaches too far is spread evenly."""
    values = grey.values
    inside = _inside(values, meant)
    low, high = float(inside.min()), float(inside.max())
    whole = values.dtype.kind != "f" or not np.any(inside % 1)
    lowest, highest = grey.ends
    if whole and (0 <= lowest <= highest <= FULL or -32768 <= lowest <= highest <= 32767):
        return replace(grey, values=np.rint(values).astype(np.int32), ends=(round(lowest), round(highest)))
    scale = FULL / ((high - low) or 1.0)
    window = grey.window and ((grey.window[0] - low) * scale, (grey.window[1] - low) * scale)
    spread = np.rint((np.clip(values, low, high) - low) * scale).astype(np.int32)
    fact = f"Values {low:g} to {high:g} are spread over 0 to {FULL}."
    return _Grey(spread, (0, FULL), window, (*grey.facts, fact))


def _as_voxels(grey: _Grey, meant: Meant) -> tuple[Voxels, tuple[float, float]]:
    """Return the values in the narrowest type, padding as black as the darkest of them, and the window."""
    values, window = grey.values, grey.window or grey.ends
    low, high = int(_inside(values, meant).min()), int(_inside(values, meant).max())
    if meant is not None:
        values = np.where(meant, values, low)
    if window[1] <= window[0]:
        window = (window[0], window[0] + 1)
    window = float(window[0]), float(window[1])
    return (values.astype(np.int16), window) if high <= 32767 else (values.astype(np.uint16), window)


def _widen(item: Dataset) -> int:
    """Let the entries of a look-up table be numbers of 16 bits, as pydicom reads all; return their bits."""
    from pydicom.dataelem import DataElement

    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 1 << 16
    data = item["LUTData"].value
    if isinstance(data, bytes):
        kind = "<u1" if len(data) in (count, count + count % 2) and bits <= 8 else "<u2"
        data = np.frombuffer(data, kind, count).tolist()
    if not 1 <= bits <= 16 or len(data) < count:
        raise ValueError("a table that is no table")
    item["LUTData"] = DataElement(0x00283006, "US", list(data)[:count])
    item["LUTDescriptor"] = DataElement(
        0x00283002, "SS" if first < 0 else "US", [count % (1 << 16), first, 16]
    )
    return bits


def _numbers(dataset: Dataset, name: str, count: int = 0) -> tuple[float, ...] | None:
    """Return numbers of the file, None if they are missing, not `count`, or no numbers."""
    try:
        value = dataset.get(name)
        found = tuple(
            map(float, value if hasattr(value, "__len__") and not isinstance(value, str) else [value])
        )
    except (TypeError, ValueError):
        return None
    return found if found and np.isfinite(found).all() and len(found) == (count or len(found)) else None


# --- what the file says -------------------------------------------------------------------------------


def _name(path: Path, info: SeriesInfo, *, alone: bool) -> str:
    """Call it as its folder or file, and also by what tells it from the others there."""
    header = info.headers[0]
    names = [path.stem if path.is_file() else path.resolve().name]
    if not alone and path.is_dir():
        names.append(header.path.stem)
    if header.frames > 1:
        names.append(f"frame {header.frame + 1}")
    return " ".join(names)


def _kind(header: SliceHeader) -> str:
    """Return what to take it for, empty if only its pixels can say whether it is of a chest."""
    if header.is_of_chest:
        return "chest X-ray"
    return "X-ray" if header.body_part else "any X-ray"


def _what(header: SliceHeader) -> str:
    shows = "Chest X-ray" if header.is_of_chest else "X-ray"
    if header.body_part and not header.is_of_chest:
        shows += f" of {header.body_part}"
    view = f"view {header.view}" if header.view else "view not stated"
    return f"{shows} ({header.modality}), {view}."


def _orientation(dataset: Dataset) -> list[str]:
    """Say which sides of the patient lie to the right and below."""
    said = dataset.get("PatientOrientation") or []
    words = [" and ".join(SIDES.get(letter, letter) for letter in str(word)) for word in said]
    if len(words) != 2 or not all(words):
        return []
    return [f"To the right lies the patient's {words[0]}, below the {words[1]} (PatientOrientation)."]


def _pixel_size(header: SliceHeader, dataset: Dataset) -> tuple[tuple[float, float] | None, str]:
    """Return (row, column) distance in mm, None if unknown, and say where it holds."""

    def spacing(name: str) -> tuple[float, float] | None:
        found = _numbers(dataset, name, 2)
        return (found[0], found[1]) if found and all(1e-3 < one < 1e3 for one in found) else None

    patient, detector = spacing("PixelSpacing"), spacing("ImagerPixelSpacing")
    film = spacing("NominalScannedPixelSpacing")
    found = patient or detector or film
    if found is None:
        return None, "The size of its pixels is unknown."
    size = f"{found[1]:.3g}" if abs(found[0] - found[1]) < 1e-3 else f"{found[1]:.3g} × {found[0]:.3g}"
    if patient is None:
        where = "at the detector (ImagerPixelSpacing)" if detector else "on the film"
    elif detector is not None and np.allclose(patient, detector, rtol=1e-3):
        where = "at the detector (PixelSpacing, as ImagerPixelSpacing)"
    elif detector is not None or dataset.get("PixelSpacingCalibrationType"):
        where = "in the patient (PixelSpacing, calibrated)"
    else:
        where = "(PixelSpacing, which does not say whether at the detector or in the patient)"
    return found, f"Pixels of {size} mm {where}."


def _remarks(header: SliceHeader, dataset: Dataset) -> list[str]:
    """Return sentences on what is unusual for a chest X-ray to be read."""
    name = header.path.name
    found = []
    if header.body_part and not header.is_of_chest:
        found.append(f"{name} shows {header.body_part}, not the chest, as it says (BodyPartExamined).")
    if header.is_lateral:
        found.append(f"{name} is a lateral view ({header.view}), not a frontal one.")
    if str(dataset.get("PresentationIntentType", "")).upper() == "FOR PROCESSING":
        found.append(
            f"{name} holds a detector's raw values (FOR PROCESSING), not a picture made to be looked at: "
            "open that one if there is one."
        )
    return found
