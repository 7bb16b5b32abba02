"""Keys for work without the mouse leaving the slice, while a case is open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from napari import Viewer
from napari.utils.key_bindings import KeyBinding

Action = Callable[[], Any]
Hold = tuple[Action, Action]
"""What to do when a key goes down, and when it comes up."""

KEYS = {
    "next": "N",
    "back": "Shift-N",
    "accept": "A",
    "accept the rest": "Alt-A",
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
STEP_KEYS = {
    "scan": "Alt-1",
    "triage": "Alt-9",
    "segment": "Alt-2",
    "correct": "Alt-3",
    "history": "Alt-0",
    "learn": "Alt-4",
    "export": "Alt-5",
}
"""Each opens a step and goes to what is done in it; they work at any time, with or without a case."""


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
