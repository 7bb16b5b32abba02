"""Batches of slices side by side: each in a thread of its own, from its voxels to its labels."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import torch

T = TypeVar("T")

WORKERS = max(2, min(8, os.cpu_count() or 2))
_MOST = 4
_sharing = threading.Lock()


class Lanes:
    """Threads that share the cores, so that none waits for another.

    On a CPU each has its part of the cores. With all cores on one batch, every layer waits for
    its slowest core, and everything before and after the network for the network. On a GPU, on
    which one network works at a time, two batches are under way: one is on the device while
    another is read, prepared or cleaned.

    Parameters
    ----------
    device : torch.device
        Where the networks are.

    Attributes
    ----------
    count : int
        How many batches are under way at a time.
    share : callable
        What maps a function to the slices of one batch: on a GPU in several threads, as the cores
        are idle; on a CPU they have work in the other lanes.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        cores = torch.get_num_threads()
        self.count = min(_MOST, cores) if self._on_cpu else 2
        self._turns = threading.Semaphore(self.count if self._on_cpu else 1)
        self._alone = threading.Lock()
        self._all_cores = ThreadPoolExecutor(1, thread_name_prefix="covseg-slices")
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="covseg-slices")
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="covseg-slices")
        self.share: Callable[..., Iterable[Any]] = map if self._on_cpu else self._workers.map
        if self._on_cpu:
            self._share_out(cores)

    def __enter__(self) -> Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop. On a CPU what is under way ends unheard: a slow network would keep a cancel waiting."""
        for pool in (self._all_cores, self._pool, self._workers):
            pool.shutdown(wait=not self._on_cpu, cancel_futures=True)

    def _share_out(self, cores: int) -> None:
        started = threading.Barrier(self.count)

        def begin(lane: int) -> None:
            torch.get_num_threads()  # torch's own setting comes with the first question, and once
            torch.set_num_threads(cores // self.count + (lane < cores % self.count))
            started.wait()

        with _sharing:
            try:
                list(self._pool.map(begin, range(self.count)))
            finally:
                # What is set in one thread holds for that thread, and for all that start later.
                torch.set_num_threads(cores)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do some work in the next lane that is free."""
        return self._pool.submit(work)

    def submit_first(self, work: Callable[[], T]) -> Future[T]:
        """Do some work with all cores, for which a person waits; before any other."""
        return self._all_cores.submit(work)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until a network may work on the device."""
        with self._turns:
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other network works on the device, and let none begin."""
        held = 0
        with self._alone:
            try:
                for _ in range(self.count if self._on_cpu else 1):
                    self._turns.acquire()
                    held += 1
                yield
            finally:
                if held:
                    self._turns.release(held)
