"""Read what matters from the header of one DICOM file: a slice, or each frame of an enhanced one."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.elements import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
    Elements,
    MalformedError,
    Piece,
    fragments,
    read_elements,
    starts_like_dicom,
    text,
)

CT_STORAGE = tuple(f"1.2.840.10008.5.1.4.1.1.2{ending}" for ending in ("", ".1", ".2"))
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
XRAY = ("DX", "CR", "RG", "RF")
"""Modalities of projections: digital and computed radiography, films, fluoroscopy."""
CHEST = ("CHEST", "THORAX", "LUNG", "PULMON")
LATERAL = ("LL", "RL", "LAT", "LATERAL")
XRAY_STORAGE = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.12.2": "RF",
}
DIRECTORY = "1.2.840.10008.1.3.10"
UNCOMPRESSED = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)

MARKS = {
    "patient": (0x00100020,),
    "study": (0x0020000D,),
    "stack": (0x00209056,),
    "temporal position": (0x00209128, 0x00200100),
    "acquisition": (0x00209156, 0x00200012),
    "echo": (0x00180086,),
    "kernel": (0x00181210,),
    "kV": (0x00180060,),
    "cardiac phase": (0x00209241, 0x00181060),
    "contrast": (0x00180010,),
    "frame of reference": (0x00200052,),
    "series number": (0x00200011,),
    "description": (0x0008103E,),
    "protocol": (0x00181030,),
    "image type": (0x00089007, 0x00080008),
    "filter": (0x00181160,),
    "slice thickness": (0x00180050,),
    "field of view": (0x00181100,),
    "tube current": (0x00181151,),
    "window": (0x00281050,),
    "comment": (0x00204000,),
    "series time": (0x00080031,),
    "acquisition time": (0x00189074, 0x0008002A, 0x00080032),
    "content time": (0x00080033,),
    "creation time": (0x00080013,),
}
"""What may tell volumes of one series apart, and the tags that say it; the first that is there counts."""

RISING = ("acquisition time", "content time", "creation time")
"""Marks that rise from slice to slice, and from volume to volume."""

_FUNCTIONAL_GROUPS = (0x52009229, 0x52009230)
_SEQUENCES = frozenset(
    {
        *_FUNCTIONAL_GROUPS,
        0x00209111,  # frame content
        0x00209113,  # plane position
        0x00209116,  # plane orientation
        0x00209310,  # temporal position
        0x00289110,  # pixel measures
        0x00289145,  # pixel value transformation
        0x00189314,  # CT reconstruction
        0x00189325,  # CT X-ray details
        0x00189329,  # CT image frame type
        0x00082218,  # anatomic region
        0x00540220,  # view code
        0x00189118,  # cardiac synchronisation
        0x00209170,  # what a conversion to enhanced DICOM found in all slices
        0x00209171,  # ... or in each
    }
)
LONGEST_CODE, LONGEST_MEANING = 16, 64
"""Characters of a code string, and of what a code means."""

_OVERLAY_BITS = frozenset(0x60000102 + (group << 17) for group in range(16))
_TAGS = frozenset(
    {
        0x00020002,
        0x00041220,
        0x00080005,
        0x00080016,
        0x00080018,
        0x00080060,
        0x00080104,
        0x00180015,
        0x00185101,
        0x00189316,
        0x0020000E,
        0x00200013,
        0x00200032,
        0x00200037,
        0x00280002,
        0x00280004,
        0x00280008,
        0x00280010,
        0x00280011,
        0x00280030,
        0x00280100,
        0x00280101,
        0x00280102,
        0x00280103,
        0x00280120,
        0x00280121,
        0x00281052,
        0x00281053,
        *(tag for tags in MARKS.values() for tag in tags),
        *_OVERLAY_BITS,
    }
)
"""Read from a header, nothing else is: the patient's name is never looked at."""


class DamagedError(ScanError):
    """A DICOM file that ends early or cannot be decoded; ``series_uid`` is its series, empty if unknown."""

    series_uid = ""


@dataclass(frozen=True)
class SliceHeader:
    """One DICOM slice: what it is, where it lies and how its pixels are stored.

    A file of several frames makes one of each: ``frame`` counts them from 0. ``position`` and
    ``orientation`` are LPS mm and cosines, ``pixel_spacing`` is (row, column) distance in mm; each is
    None where the file has none. ``rounding`` is the last digit of each written coordinate, in mm.
    ``pieces`` say where the compressed bytes of a frame lie, if the file holds several.
    ``padding`` are the least and greatest stored value that mean that there is no picture.
    ``modality`` is CT or an X-ray's too where only the SOP class says so. ``marks`` are the raw values of
    `MARKS`. ``body_part`` and ``view`` are an X-ray's, as its file calls them, empty where it does not.
    """

    path: Path
    modality: str
    stated_modality: str
    sop_class: str
    sop_uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    patient_id: str
    description: str
    series_number: str
    localizer: bool
    rows: int
    columns: int
    frame: int
    frames: int
    instance: int | None
    position: tuple[float, ...] | None
    rounding: tuple[float, ...]
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    thickness: float | None
    rescaled: bool
    slope: float
    intercept: float
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None
    overlay_in_pixels: bool
    samples: int
    photometric: str
    transfer_syntax: str
    pixels_at: int
    pixels_length: int
    marks: tuple[bytes, ...]
    pieces: tuple[Piece, ...] = ()
    body_part: str = ""
    view: str = ""

    @property
    def is_xray(self) -> bool:
        """Whether it is a projection: each is a picture of its own, not a slice among others."""
        return self.modality in XRAY

    @property
    def is_of_chest(self) -> bool:
        """Whether an X-ray's file says that it shows a chest."""
        return any(word in self.body_part.upper() for word in CHEST)

    @property
    def is_lateral(self) -> bool:
        """Whether an X-ray's file says that it was taken from the side."""
        return any(word in LATERAL for word in self.view.upper().replace("-", " ").split())

    @property
    def plane(self) -> str:
        """``axial``, ``coronal`` or ``sagittal`` by the slice's normal, else ``unknown``."""
        if self.orientation is None:
            return "unknown"
        normal = np.abs(np.cross(self.orientation[:3], self.orientation[3:]))
        return ("sagittal", "coronal", "axial")[int(normal.argmax())] if normal.max() > 0.5 else "unknown"

    def mark(self, name: str) -> str:
        """Say one of `MARKS` in plain text, empty if the file has none."""
        return text(self.marks[list(MARKS).index(name)])


def looks_like_dicom(path: Path) -> bool:
    """Whether the first bytes are those of a DICOM file; OSError if it cannot be read."""
    with path.open("rb") as file:
        return starts_like_dicom(file.read(132))


def damaged(path: Path, series_uid: str = "") -> DamagedError:
    """Build the error for a DICOM file that ends early or cannot be decoded."""
    error = DamagedError(
        f"{path.name} is truncated or damaged and cannot be read as DICOM; copy it again from where it "
        "came from."
    )
    error.series_uid = series_uid
    return error


def read_slices(path: Path) -> list[SliceHeader] | None:
    """Read the header of a DICOM file: its slices, none for a report and the like; None if it is no DICOM.

    Raises
    ------
    DamagedError
        If it is cut or damaged.
    OSError
        If it cannot be read.
    """
    try:
        found = read_elements(path, _TAGS, _SEQUENCES)
    except (MalformedError, struct.error) as error:
        raise damaged(path) from error
    if found is None:
        return None
    if _is_directory(found):
        return []
    facts = _Facts(found.values, found.big_endian)
    series_uid = facts.text(0x0020000E)
    if not found.whole:
        raise damaged(path, series_uid)
    try:
        return _slices(path, found, facts)
    except DamagedError:
        raise
    except Exception as error:  # values are converted here, so mangled ones fail in any way
        raise damaged(path, series_uid) from error


def without_image(path: Path) -> ScanError:
    """Build the error for a DICOM file that holds no picture."""
    found = read_elements(path, _TAGS, frozenset())
    if found is not None and _is_directory(found):
        return ScanError(
            f"{path.name} is a directory of DICOM files (a DICOMDIR), not an image; choose the folder that "
            "holds it."
        )
    kind = text(found.values.get(0x00080060, b"")) if found is not None else ""
    return ScanError(
        f"{path.name} is a DICOM file without an image ({kind or 'of unknown kind'}); choose a CT slice."
    )


def _is_directory(found: Elements) -> bool:
    """Whether a file is a DICOMDIR, under whatever name."""
    stated = {text(found.values.get(tag, b"")) for tag in (0x00020002, 0x00080016)}
    return DIRECTORY in stated or 0x00041220 in found.values


class _Facts:
    """The elements of a slice as text and numbers."""

    def __init__(self, values: Mapping[int, Any], big_endian: bool) -> None:
        self.values = values
        self._order = ">" if big_endian else "<"

    def raw(self, *tags: int) -> bytes:
        for tag in tags:
            if value := self.values.get(tag):
                return bytes(value)
        return b""

    def text(self, *tags: int) -> str:
        return text(self.raw(*tags))

    def code(self, tag: int) -> str:
        """Return a word of DICOM's, on one line and not longer than one may be, however damaged it is."""
        return " ".join(self.text(tag).split())[:LONGEST_CODE]

    def free_text(self, tag: int) -> str:
        """Text in the file's own character set."""
        value = self.raw(tag)
        if value.isascii() and b"\x1b" not in value:
            return text(value)
        from pydicom.charset import decode_bytes, python_encoding  # here, because it takes long to load

        names = self.text(0x00080005).split("\\")
        encodings = [python_encoding.get(name, "latin-1") for name in names]
        return str(decode_bytes(value, encodings, set())).strip("\0 ")

    def meaning(self, tag: int) -> str:
        """Return what the first code of a sequence means, in words."""
        items = self.values.get(tag) or [{}]
        return " ".join(text(items[0].get(0x00080104, b"")).split())[:LONGEST_MEANING]

    def integer(self, tag: int, default: int = 0) -> int:
        value = self.raw(tag)
        if len(value) in (2, 4):
            return int(struct.unpack(self._order + ("H" if len(value) == 2 else "I"), value)[0])
        return default

    def number(self, tag: int, default: float) -> float:
        return float(self.text(tag) or default)

    def vector(self, tag: int, size: int) -> tuple[float, ...] | None:
        words = self.text(tag).split("\\")
        if len(words) != size:
            return None
        numbers = tuple(map(float, words))
        return numbers if np.isfinite(numbers).all() else None

    def rounding(self, tag: int) -> tuple[float, ...]:
        """The last digit of each number, 0 where there is an exponent."""
        words = self.text(tag).lower().split("\\")
        return tuple(0.0 if "e" in word else 10.0 ** -len(word.strip().partition(".")[2]) for word in words)


def _slices(path: Path, found: Elements, facts: _Facts) -> list[SliceHeader]:
    series_uid = facts.text(0x0020000E)
    header = _slice(path, found, facts)
    if not (header.rows and header.columns):
        # Scanners also store raw data without pixels as modality CT; that is no damage.
        if header.sop_class in (*CT_STORAGE, "") or header.is_xray:
            raise damaged(path, series_uid)
        return []
    if header.modality not in ("CT", "") and not header.is_xray:
        return [header]  # it is not read, so whether all of it is there does not matter
    if header.is_xray:
        return _pictures(path, header, found, facts)
    per_frame = found.values.get(_FUNCTIONAL_GROUPS[1])
    if _is_cut(path, header, found, len(per_frame or ".")):
        raise damaged(path, series_uid)
    if not per_frame:
        # One position for several frames does not say where each of them lies.
        return [header if header.frames == 1 else replace(header, position=None)]
    if len(per_frame) != header.frames:
        raise damaged(path, series_uid)
    shared = _flat(found.values.get(_FUNCTIONAL_GROUPS[0], []))
    pieces = _pieces(path, header)
    headers = []
    for n, groups in enumerate(per_frame):
        facts = _Facts({**found.values, **shared, **_flat([groups])}, found.big_endian)
        headers.append(replace(_slice(path, found, facts), frame=n, pieces=pieces[n]))
    return headers


def _pictures(path: Path, header: SliceHeader, found: Elements, facts: _Facts) -> list[SliceHeader]:
    """Return an X-ray, or each of its frames, with what it shows."""
    if header.frames < 1 or _is_cut(path, header, found, header.frames):
        raise damaged(path, header.series_uid)
    header = replace(
        header,
        body_part=facts.code(0x00180015) or facts.meaning(0x00082218),
        view=facts.code(0x00185101) or facts.meaning(0x00540220),
    )
    if header.frames == 1:
        return [header]
    return [replace(header, frame=n, pieces=one) for n, one in enumerate(_pieces(path, header))]


def _pieces(path: Path, header: SliceHeader) -> list[tuple[Piece, ...]]:
    """Return where the compressed bytes of each frame lie, nothing of uncompressed ones."""
    if header.transfer_syntax in UNCOMPRESSED:
        return [()] * header.frames
    with path.open("rb") as file:
        return fragments(file, header.pixels_at, path.stat().st_size, header.frames)


def _flat(items: list[dict[int, Any]]) -> dict[int, Any]:
    """Bring the values of nested sequences into one dict."""
    flat: dict[int, Any] = {}
    for item in items:
        for tag, value in item.items():
            flat.update(_flat(value) if isinstance(value, list) else {tag: value})
    return flat


def _is_cut(path: Path, header: SliceHeader, found: Elements, frames: int) -> bool:
    """Whether the file ends before its last pixel, as far as can be seen without decoding."""
    if found.pixels is None:
        return True
    if header.transfer_syntax not in UNCOMPRESSED or header.transfer_syntax == DEFLATED:
        return False
    needed = frames * header.rows * header.columns * header.bits_allocated // 8
    at, length = found.pixels
    return length == UNDEFINED or needed > min(length, path.stat().st_size - at)


def _slice(path: Path, found: Elements, facts: _Facts) -> SliceHeader:
    modality = facts.code(0x00080060).upper()
    sop_class = facts.text(0x00080016, 0x00020002)
    if sop_class.startswith(SECONDARY_CAPTURE) and modality not in XRAY:
        kind = "SC"  # of a CT it is a picture of a screen; X-rays are often kept so
    else:
        kind = modality or ("CT" if sop_class in CT_STORAGE else XRAY_STORAGE.get(sop_class, ""))
    thickness = facts.number(0x00180050, 0)
    bits_stored = facts.integer(0x00280101, 16)
    signed = facts.integer(0x00280103) == 1
    at, length = found.pixels or (0, 0)
    image_type = facts.text(0x00089007, 0x00080008).upper()
    return SliceHeader(
        path=path,
        modality=kind,
        stated_modality=modality,
        sop_class=sop_class,
        sop_uid=facts.text(0x00080018),
        series_uid=facts.text(0x0020000E),
        study_uid=facts.text(0x0020000D),
        frame_of_reference_uid=facts.text(0x00200052),
        patient_id=facts.free_text(0x00100020),
        description=facts.free_text(0x0008103E),
        series_number=facts.text(0x00200011),
        localizer=any(word in image_type for word in ("LOCALIZER", "SCOUT", "TOPOGRAM")),
        rows=facts.integer(0x00280010),
        columns=facts.integer(0x00280011),
        frame=0,
        frames=int(facts.text(0x00280008) or 1),
        instance=_instance(facts.text(0x00200013)),
        position=facts.vector(0x00200032, 3),
        rounding=facts.rounding(0x00200032),
        orientation=facts.vector(0x00200037, 6),
        pixel_spacing=facts.vector(0x00280030, 2),
        thickness=thickness if np.isfinite(thickness) and thickness > 0 else None,
        rescaled=bool(facts.raw(0x00281052) or facts.raw(0x00281053)),
        slope=facts.number(0x00281053, 1),
        intercept=facts.number(0x00281052, 0),
        bits_allocated=facts.integer(0x00280100, 16),
        bits_stored=bits_stored,
        high_bit=facts.integer(0x00280102, bits_stored - 1),
        signed=signed,
        padding=_padding(facts, signed),
        overlay_in_pixels=any(facts.integer(tag) for tag in _OVERLAY_BITS & facts.values.keys()),
        samples=facts.integer(0x00280002, 1),
        photometric=facts.code(0x00280004),
        transfer_syntax=found.syntax,
        pixels_at=at,
        pixels_length=length,
        marks=tuple(_mark(facts, tags) for tags in MARKS.values()),
    )


def _mark(facts: _Facts, tags: tuple[int, ...]) -> bytes:
    for tag in tags:
        if value := facts.raw(tag):
            binary = tag in (0x00209128, 0x00209156, 0x00209241)
            return str(int.from_bytes(value, "little")).encode() if binary else value
    return b""


def _instance(written: str) -> int | None:
    try:
        return int(written)
    except ValueError:
        return None


def _padding(facts: _Facts, signed: bool) -> tuple[int, int] | None:
    """Return the least and greatest stored value of padding, read as the pixels are."""
    if len(facts.raw(0x00280120)) not in (2, 4):
        return None
    first = facts.integer(0x00280120)
    ends = [first, facts.integer(0x00280121, first)]
    if signed:
        half = 1 << (8 * len(facts.raw(0x00280120)) - 1)
        ends = [(end ^ half) - half for end in ends]
    return min(ends), max(ends)
