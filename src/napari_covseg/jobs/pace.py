"""How fast a job is and when it will be done."""

from __future__ import annotations

import time

from napari_covseg.jobs.events import Progress


class Pace:
    """Counts what is done since it was made.

    Parameters
    ----------
    total : int
    unit : str
        What is counted, in the plural.
    begun : int
        How many were done before.
    """

    def __init__(self, total: int, unit: str = "slices", begun: int = 0) -> None:
        self._total = total
        self._unit = unit
        self._begun = begun
        self._since = time.perf_counter()
        self.progress = Progress(begun, total, unit)

    def at(self, done: int) -> Progress:
        """Return the progress now that `done` of all are done; it is kept in `progress`."""
        if done > self._begun:
            speed = (done - self._begun) / max(time.perf_counter() - self._since, 1e-6)
            left = max(self._total - done, 0) / speed
            self.progress = Progress(done, self._total, self._unit, round(speed, 2), round(left, 1))
        return self.progress
