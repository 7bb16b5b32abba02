"""Keys for work without the mouse leaving the slice, while a case is open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from napari import Viewer
from napari.utils.key_bindings import KeyBinding

from napari_covseg.panels.correct.tools import TOOLS

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session

Action = Callable[[], Any]
Hold = tuple[Action, Action]
"""What to do when a key goes down, and when it comes up."""

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


class Keys:
    """Binds keys to a viewer and to the layers of a case, and gives them back.

    napari asks the layer that is selected first, then the viewer: a key that napari's
    labels layers use themselves is only taken over on the layers of the case.

    Parameters
    ----------
    viewer : Viewer
    actions : dict of callable or pair of callables
        By key, as napari writes it ("Shift-N"); a pair is for a key that is held.
    """

    def __init__(self, viewer: Viewer, actions: dict[str, Action | Hold]) -> None:
        self._viewer = viewer
        self._actions = actions
        self._bound: list[tuple[Any, Any, Any]] = []  # (keymap, key, what it was bound to)

    def bind(self, layers: Iterable[Any]) -> None:
        """Take the keys over, on these layers and on the viewer."""
        self.unbind()
        for provider in (*layers, self._viewer):
            for name, action in self._actions.items():
                key = KeyBinding.from_str(name)
                before = provider.keymap.get(key)
                provider.bind_key(name, called(action), overwrite=True)
                self._bound.append((provider.keymap, key, before))

    def unbind(self) -> None:
        """Give the keys back to whoever had them."""
        for keymap, key, before in reversed(self._bound):
            keymap.pop(key, None)
            if before is not None:
                keymap[key] = before
        self._bound.clear()


def called(action: Action | Hold) -> Callable[[Any], Any]:
    """Return a function as napari wants one for a key."""
    if not isinstance(action, tuple):
        return lambda provider: action() and None
    down, up = action

    def hold(provider: Any) -> Iterator[None]:
        down()
        yield
        up()

    return hold


def shown(key: str) -> str:
    """Return a key as it is written on a button."""
    return key.replace("Shift-", "⇧").replace("Alt-", "Alt+").replace("Control-", "Ctrl+")


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
