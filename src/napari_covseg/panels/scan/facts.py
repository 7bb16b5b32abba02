"""What is to know of a scan and its case, in a few lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from napari_covseg.cases.case import Damage
from napari_covseg.panels.layers import scan_layer_name
from napari_covseg.panels.signs import warning

AT_MOST = 8  # slices that are named
_LOST = {
    "scan": "cannot be read and {is_are} shown as air",
    "labels": "cannot be read and {is_are} shown empty: models leave {it_them} alone",
    "touched": "no longer tell{s} what a person drew: models leave {it_them} alone",
}
_RECORDS = {
    "review": "The review states were damaged: all slices begin as untouched.",
    "activity": "The case's dates were damaged and begin anew.",
}


def facts(
    header: dict[str, Any], shape: tuple[int, int, int], damage: Sequence[str] = (), kind: str = "chest CT"
) -> str:
    """Return a scan's facts as rich text.

    Parameters
    ----------
    header : dict
        As `Scan.header` gives it.
    shape : tuple of int
        Slices, rows, columns.
    damage : sequence of str
        What of its case cannot be read.
    kind : str
        What it looks like, see `scans.appearance.Appearance`.
    """
    count, rows, columns = shape
    name, said = header["name"] or "Unnamed scan", header.get("facts", ())
    lines = [f"<b>{escape(name if kind == 'chest CT' else scan_layer_name(name, kind))}</b>"]
    patient = header["patient_id"]
    lines.append(f"Patient {escape(patient)}" if patient else "No patient id")
    slices = f"{count} slice{'s' if count != 1 else ''} of {columns} × {rows} pixels"
    spacing = header["spacing"]
    if spacing is None:
        lines.append(slices if said else f"{slices}, size in mm unknown")
    else:
        z, y, x = spacing
        pixel = f"{x:.3g}" if abs(x - y) < 1e-3 else f"{x:.3g} × {y:.3g}"
        lines.append(slices)
        lines.append(f"Pixels of {pixel} mm, slices {z:.3g} mm apart")
        lines.append(f"Covers {x * columns:.0f} × {y * rows:.0f} × {z * count:.0f} mm")
    lines += map(escape, said)
    if header["intensity"] != "HU":
        lines.append("Grey values, not HU: window presets are off")
    lines += [warning(text) for text in (*header["notes"], *damage)]
    return "<br>".join(lines)


def damage_text(damaged: Iterable[Damage]) -> list[str]:
    """Return one sentence for each kind of damage, with slices counted from 1."""
    places: dict[tuple[str, str, bool], set[int]] = {}
    for damage in damaged:
        # a slice's labels and what is a person's of them are one thing to the person
        what = "labels" if damage.rebuilt and damage.what == "touched" else damage.what
        places.setdefault((what, damage.group, damage.rebuilt), set()).add(damage.z + 1)
    return [_sentence(*kind, sorted(slices)) for kind, slices in places.items()]


def _sentence(what: str, group: str, rebuilt: bool, slices: list[int]) -> str:
    if what in _RECORDS:
        return _RECORDS[what]
    several = len(slices) > 1
    named = ", ".join(map(str, slices[:AT_MOST])) + (" …" if len(slices) > AT_MOST else "")
    subject = f"Slice{'s' if several else ''} {named} of the {group or 'scan'}"
    if rebuilt:
        return f"{subject} {'were' if several else 'was'} damaged and made anew from the history."
    words = {
        "is_are": "are" if several else "is",
        "it_them": "them" if several else "it",
        "s": "" if several else "s",
    }
    return f"{subject} {_LOST[what].format(**words)}."
