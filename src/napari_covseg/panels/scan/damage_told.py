"""What of a case was damaged, in a few sentences for a person."""

from __future__ import annotations

from collections.abc import Iterable

from napari_covseg.cases import Damage

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


def told(damaged: Iterable[Damage]) -> list[str]:
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
