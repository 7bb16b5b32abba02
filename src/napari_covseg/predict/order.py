"""Which slice comes next: the one nearest to where the reader looks."""

from __future__ import annotations

import threading


class SliceOrder:
    """Hand out each slice once, nearest to the focus first; safe to use from several threads.

    Parameters
    ----------
    count : int
        Number of slices.
    first : int
        The slice on screen; clipped to the scan.
    """

    def __init__(self, count: int, first: int = 0) -> None:
        self._left = set(range(count))
        self._count = count
        self._lock = threading.Lock()
        self._focus = 0
        self.refocus(first)

    def __len__(self) -> int:
        return len(self._left)

    def refocus(self, z: int) -> None:
        """Move the focus to slice `z`: what is handed out from now on is nearest to it."""
        with self._lock:
            self._focus = min(max(z, 0), max(self._count - 1, 0))

    def take(self, number: int) -> list[int]:
        """Return up to `number` slices that were not handed out yet, nearest first."""
        with self._lock:
            # above before below at equal distance: lungs are read from the bases upwards
            nearest = sorted(self._left, key=lambda z: (abs(z - self._focus), -z))[:number]
            self._left.difference_update(nearest)
            return nearest
