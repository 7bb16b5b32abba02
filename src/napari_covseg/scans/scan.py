"""A scan in memory: voxels, geometry and where it came from; and what a format is that reads one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from napari_covseg.scans.orientation import canonical_affine, canonical_axes, spacing_of

Intensity = Literal["HU", "grey"]

Values = Literal["HU", "HU+1024", "grey"]
"""What a person may say that values are: HU as they stand, HU plus 1024 as scanners store them, or grey."""

LUNG_WINDOW = (-1350, 150)
"""HU at which a scan is first shown and looked at: level -600, width 1500."""


def in_window(values: npt.NDArray[Any], window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return values as grey, 0 at the lower end of a window and 255 at the upper one."""
    low, high = window
    return np.asarray((np.clip(values.astype(np.float32), low, high) - low) / (high - low) * 255, np.uint8)


METADATA_KEY = "covseg_scan"
"""Under this key the metadata of a napari layer hold the `Scan` that it shows or labels."""

Voxels = npt.NDArray[np.int16] | npt.NDArray[np.uint16]
"""HU or grey values; uint16 only of X-rays whose values are above 32767."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A chest CT scan, a stack of grey pictures or an X-ray in canonical orientation.

    Attributes
    ----------
    voxels : ndarray of int16, shape (z, y, x); of X-rays with values above 32767 uint16
        z rises to the head, y to the back, x to the patient's left. HU, or for
        pictures the grey values as stored (0-255). An X-ray lies as its file shows it.
    spacing : tuple of float, or None
        (z, y, x) in mm; None for pictures and X-rays, which have no known size in the patient.
    intensity : {"HU", "grey"}
    affine : ndarray of float64, shape (4, 4)
        Maps (z, y, x, 1) of `voxels` to world mm in DICOM's LPS frame. The identity
        permuted to (z, y, x) when unknown.
    source_shape : tuple of int
        Shape (k, j, i) of the volume as it was stored.
    source_affine : ndarray of float64, shape (4, 4)
        Maps (i, j, k, 1) of the stored volume to world mm in LPS, unchanged: gantry
        tilt (shear) and rotation included.
    axes, flips : tuples
        ``voxels == flip(stored.transpose(axes), where flips)`` with `stored` (k, j, i).
    name, path : str
        What to call it and where it was read from.
    series : str
        What `read_scan` takes as its series to read this one of a folder again, empty if there is no choice.
    patient_id, study_uid, series_uid, frame_of_reference_uid : str
        As found, empty if absent. The patient's name is never kept.
    sop_uids : tuple of str
        One per slice in the order of `voxels` (empty strings where the file has none),
        or empty when the source was not DICOM.
    notes : tuple of str
        What a person should know: gantry tilt, missing tags, other series in the folder.
    nifti : str
        How a NIfTI header places the volume, see `nifti.PLACING`; empty for other formats.
    stated : {"", "chest X-ray", "X-ray", "any X-ray"}
        What its file says that it is: of a chest, of something else, or of something that it does not name.
    window : tuple of float, or None
        The grey values that its file wants to be shown black and white.
    facts : tuple of str
        What its file says of an X-ray, one sentence each; nothing that is unusual.
    """

    voxels: Voxels
    spacing: tuple[float, float, float] | None
    intensity: Intensity
    affine: npt.NDArray[np.float64]
    source_shape: tuple[int, int, int]
    source_affine: npt.NDArray[np.float64]
    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    name: str = ""
    path: str = ""
    patient_id: str = ""
    study_uid: str = ""
    series_uid: str = ""
    series: str = ""
    frame_of_reference_uid: str = ""
    sop_uids: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
    nifti: str = ""
    stated: str = ""
    window: tuple[float, float] | None = None
    facts: tuple[str, ...] = field(default=())

    @classmethod
    def placed(
        cls,
        voxels: Voxels,
        source_shape: tuple[int, int, int],
        source_affine: npt.NDArray[np.float64],
        *,
        measured: bool = True,
        **facts: Any,
    ) -> Scan:
        """Make a scan of voxels (z, y, x) that lie as `orientation.empty` lays them.

        Without `measured` its spacing is unknown. `facts` are the other attributes.
        """
        axes, flips = canonical_axes(source_affine)
        return cls(
            voxels=voxels,
            spacing=spacing_of(source_affine, axes) if measured else None,
            affine=canonical_affine(source_affine, source_shape, axes, flips),
            source_shape=source_shape,
            source_affine=source_affine,
            axes=axes,
            flips=flips,
            **facts,
        )

    def header(self) -> dict[str, Any]:
        """Everything but the voxels, as JSON-ready values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "voxels"}
        values["affine"] = self.affine.tolist()
        values["source_affine"] = self.source_affine.tolist()
        return values

    @classmethod
    def from_header(cls, header: dict[str, Any], voxels: Voxels) -> Scan:
        """Rebuild a scan from `header()` and its voxels, shape (z, y, x)."""
        known = {key: v for key, v in header.items() if key in cls.__dataclass_fields__}
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in known.items()}
        values["affine"] = np.asarray(header["affine"], np.float64)
        values["source_affine"] = np.asarray(header["source_affine"], np.float64)
        return cls(voxels=voxels, **values)


class Format(ABC):
    """A format of files that scans are read from.

    Attributes
    ----------
    name : str
    suffixes : tuple of str
        Of the files that are offered for reading, in small letters.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    def recognises(self, path: Path) -> bool:
        """Whether a file is of this format; by its name, if a format does not know better."""
        return path.name.lower().endswith(self.suffixes)

    @abstractmethod
    def read(self, path: Path, values: Values | None = None) -> Scan:
        """Read a file as a scan; `values` as in `formats.read_scan`.

        Raises
        ------
        ScanError
            If it is damaged, no CT, or there is no picture in it.
        """
