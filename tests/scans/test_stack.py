"""When the slices of a series are alike, and where they lie along their normal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_covseg.scans.dicom.header import SliceHeader
from napari_covseg.scans.dicom.stack import (
    StackError,
    check_alike,
    off_a_line,
    ordered,
    positions,
    stored_affine,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def slice_at(*position: float, **changes: Any) -> SliceHeader:
    known: dict[str, Any] = {
        **{"path": Path(f"{position[-1] if position else 0}.dcm"), "modality": "CT", "stated_modality": "CT"},
        **dict.fromkeys(("sop_class", "sop_uid", "series_uid", "study_uid", "frame_of_reference_uid"), "1"),
        **dict.fromkeys(("patient_id", "description", "series_number", "photometric", "transfer_syntax"), ""),
        **{"localizer": False, "rows": 4, "columns": 4, "frame": 0, "frames": 1, "instance": None},
        **{"position": position, "rounding": (1e-6,) * 3, "orientation": AXIAL, "pixel_spacing": (0.7, 0.7)},
        **{"thickness": 1.0, "rescaled": True, "slope": 1.0, "intercept": 0.0, "bits_allocated": 16},
        **{"bits_stored": 16, "high_bit": 15, "signed": True, "padding": None, "overlay_in_pixels": False},
        **{"samples": 1, "pixels_at": 0, "pixels_length": 32, "marks": (), **changes},
    }
    return SliceHeader(**known)


def test_positions_are_along_the_normal_of_the_first_slice() -> None:
    oblique = {"orientation": (0.6, 0.0, 0.8, 0.0, 1.0, 0.0)}  # its normal is (-0.8, 0, 0.6)
    there = [slice_at(0, 0, 0, **oblique), slice_at(-8, 5, 6, **oblique), slice_at(6, 0, 8)]
    np.testing.assert_allclose(positions(there), [0, 10, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"pixel_spacing": (0.7005, 0.7)}, ""),  # as much is lost in writing
        ({"pixel_spacing": (0.702, 0.7)}, "mixes pixel spacings"),
        ({"orientation": (1.0, 0.0, 0.009, 0.0, 1.0, 0.0)}, ""),
        ({"orientation": (1.0, 0.0, 0.015, 0.0, 1.0, 0.0)}, "not parallel"),
        ({"position": None}, "does not say where"),
        ({"orientation": None}, "does not say where"),
    ],
)
def test_how_alike_slices_are(changes: dict[str, Any], refused: str) -> None:
    both = [slice_at(0, 0, 0), slice_at(0, 0, 1, **changes)]
    if not refused:
        check_alike(both)
        return
    with pytest.raises(StackError, match=refused):
        check_alike(both)


def test_all_pairs_at_the_same_position_are_counted() -> None:
    pairs = [slice_at(0, 0, z) for z in (0, 0, 1, 1, 2, 2, 3)]
    with pytest.raises(StackError, match=r"at the same position \(0\.00 mm\), and so do 2 more pairs"):
        ordered(pairs)


def test_how_far_positions_are_from_even_ones() -> None:
    assert off_a_line(np.array([0.0, 1.0, 2.0, 3.0])) == pytest.approx(0, abs=1e-9)
    assert off_a_line(np.array([0.0, 1.2, 2.0, 3.0])) == pytest.approx(0.1, abs=1e-6)


def test_of_two_steps_the_greater_is_the_gap() -> None:
    with pytest.raises(StackError, match=r"1\.dcm and 3\.dcm lie 2\.00 mm apart where .* 1\.00 mm apart"):
        ordered([slice_at(0, 0, z) for z in (0, 1, 3)])


def test_slices_lie_beside_the_line_only_at_right_angles_to_their_normal() -> None:
    affine = stored_affine([slice_at(0, 0, z) for z in (0, 10, 30)])  # uneven, but on one line
    np.testing.assert_allclose(affine, np.diag([0.7, 0.7, 15, 1]))
    with pytest.raises(StackError, match=r"10\.dcm lies 2\.0 mm beside the line"):
        stored_affine([slice_at(2 * (z == 10), 0, z) for z in (0, 10, 20)])
