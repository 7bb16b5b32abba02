"""Which key does what while a case is open; the tools' own keys are in `tools`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from napari_covseg.panels.correct.tools import TOOLS
from napari_covseg.panels.keys import Action, Hold

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session

KEYS = {
    "next": "N",
    "back": "Shift-N",
    "accept": "A",
    "reopen": "R",
    "hide": "H",
    "compare": "T",
    "paint": "P",
    "erase": "E",
    "measure": "M",
    "refine": "Shift-R",
    "range": "Q",
    "volume": "Y",
    "smaller": "[",
    "larger": "]",
    "put away": "Escape",
}
"""napari keeps its own F for the bucket, L, V, X and Z."""


def actions(session: Session) -> dict[str, Action | Hold]:
    """Return what each key does in a session."""
    correction, reviewing = session.correction, session.reviewing

    def put_away() -> None:
        session.measuring.switch(False)
        correction.put_away()

    named: dict[str, Action | Hold] = {
        "next": reviewing.go_next,
        "back": reviewing.go_back,
        "accept": reviewing.accept,
        "reopen": reviewing.reopen,
        "hide": (reviewing.hide, reviewing.unhide),
        "compare": reviewing.compare,
        "paint": partial(correction.paint, "paint"),
        "erase": partial(correction.paint, "erase"),
        "measure": session.measuring.toggle,
        "refine": session.refining.refine,
        "range": lambda: correction.set_range(not correction.limited),
        "volume": lambda: correction.set_volume(not correction.volume),
        "smaller": lambda: correction.scale_brush(-1),
        "larger": lambda: correction.scale_brush(1),
        "put away": put_away,
    }
    bound: dict[str, Action | Hold] = {KEYS[name]: action for name, action in named.items()}
    for known in TOOLS:
        bound[known.key] = partial(correction.use, known.name)
    for value in range(1, 5):
        bound[str(value)] = partial(correction.choose_label, value)
    return bound
