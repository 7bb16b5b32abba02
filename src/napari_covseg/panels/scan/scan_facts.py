"""Patient, size, geometry and what to know of a scan, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any


def facts(header: dict[str, Any], shape: tuple[int, int, int], damage: Sequence[str] = ()) -> str:
    """Return a scan's facts as rich text.

    Parameters
    ----------
    header : dict
        As `Scan.header` gives it.
    shape : tuple of int
        Slices, rows, columns.
    damage : sequence of str
        What of its case cannot be read.
    """
    count, rows, columns = shape
    lines = [f"<b>{escape(header['name'] or 'Unnamed scan')}</b>"]
    patient = header["patient_id"]
    lines.append(f"Patient {escape(patient)}" if patient else "No patient id")
    slices = f"{count} slice{'s' if count != 1 else ''} of {columns} × {rows} pixels"
    spacing = header["spacing"]
    if spacing is None:
        lines.append(f"{slices}, size in mm unknown")
    else:
        z, y, x = spacing
        pixel = f"{x:.3g}" if abs(x - y) < 1e-3 else f"{x:.3g} × {y:.3g}"
        lines.append(slices)
        lines.append(f"Pixels of {pixel} mm, slices {z:.3g} mm apart")
        lines.append(f"Covers {x * columns:.0f} × {y * rows:.0f} × {z * count:.0f} mm")
    if header["intensity"] != "HU":
        lines.append("Grey values, not HU: window presets are off")
    lines += [f"<span style='color:#e0a030'>⚠ {escape(text)}</span>" for text in (*header["notes"], *damage)]
    return "<br>".join(lines)
