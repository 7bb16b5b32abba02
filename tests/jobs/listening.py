"""Hear what a client hears, until something has happened."""

from __future__ import annotations

import time
from collections.abc import Callable

from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import END, Event

PATIENCE = 150.0  # seconds; only a broken test waits for so long


class Listener:
    """Polls a client and remembers what it heard."""

    def __init__(self, client: JobClient) -> None:
        self.client = client
        self.heard: list[tuple[int, Event]] = []

    def of(self, job_id: int) -> list[Event]:
        return [event for heard_id, event in self.heard if heard_id == job_id]

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited in vain; heard {self.heard}; log {self.client.log}"
            time.sleep(0.005)
            self.heard += self.client.poll()

    def until_end(self, job_id: int) -> list[Event]:
        self.until(lambda: any(isinstance(event, END) for event in self.of(job_id)))
        return self.of(job_id)
