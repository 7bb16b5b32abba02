"""Scan in, labelled slices out: nearest to the focus first, several batches side by side."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import torch

from napari_covseg.errors import JobError
from napari_covseg.models.file import Model
from napari_covseg.models.forward import heads
from napari_covseg.predict.ensemble import Ensemble, PreparedSlice
from napari_covseg.predict.guide import Guide
from napari_covseg.predict.labelling import Labeller, ReadSlice, SlicePrediction, Thresholded
from napari_covseg.scans.appearance import HOUNSFIELD, Appearance

_log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = max(2, min(8, os.cpu_count() or 2))
_MOST = 4
_sharing = threading.Lock()


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


class Workers:
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
        are idle; on a CPU they have work in the other workers.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        cores = torch.get_num_threads()
        self.count = min(_MOST, cores) if self._on_cpu else 2
        self._turns = threading.Semaphore(self.count if self._on_cpu else 1)
        self._alone = threading.Lock()
        self._all_cores = ThreadPoolExecutor(1, thread_name_prefix="covseg-slices")
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="covseg-slices")
        self._sharing_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="covseg-slices")
        self.share: Callable[..., Iterable[Any]] = map if self._on_cpu else self._sharing_threads.map
        if self._on_cpu:
            self._share_out(cores)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop. On a CPU what is under way ends unheard: a slow network would keep a cancel waiting."""
        for pool in (self._all_cores, self._pool, self._sharing_threads):
            pool.shutdown(wait=not self._on_cpu, cancel_futures=True)

    def _share_out(self, cores: int) -> None:
        started = threading.Barrier(self.count)

        def begin(worker: int) -> None:
            torch.get_num_threads()  # torch's own setting comes with the first question, and once
            torch.set_num_threads(cores // self.count + (worker < cores % self.count))
            started.wait()

        with _sharing:
            try:
                list(self._pool.map(begin, range(self.count)))
            finally:
                # What is set in one thread holds for that thread, and for all that start later.
                torch.set_num_threads(cores)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do some work in the next worker that is free."""
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


def default_batch(device: torch.device) -> int:
    """Slices per pass: many on a GPU; on a CPU one, as several passes go on side by side."""
    return {"cuda": 32, "cpu": 1}.get(device.type, 4)


def warm_up(model: Model) -> None:
    """Run the network on empty slices, so that the first real ones need not wait.

    The first pass of a network chooses its kernels and takes the memory that later ones use again.
    """
    size = model.preparation.size

    @torch.inference_mode()
    def forward() -> None:
        slices = torch.zeros(default_batch(model.device), 1, size, size, device=model.device)
        with workers.turn():
            heads(model.network, slices)

    with Workers(model.device) as workers:
        try:
            workers.submit_first(forward).result()
            for trial in [workers.submit(forward) for _ in range(workers.count)]:
                trial.result()
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):  # with real slices the batch is halved
                raise


def predict_slices(
    read_slice: ReadSlice,
    model: Model | Ensemble,
    order: SliceOrder,
    *,
    appearance: Appearance = HOUNSFIELD,
    spacing: tuple[float, float] | None = None,
    batch: int | None = None,
    thresholds: dict[str, float] | None = None,
    probabilities: bool = False,
    min_pixels: int = 0,
    guide: Guide | None = None,
    notice: Callable[[str], None] = _log.warning,
    heartbeat: float | None = None,
) -> Generator[list[SlicePrediction], None, None]:
    """Label the slices that `order` hands out, nearest to its focus first.

    The first batch is a single slice, so that it appears at once. After it several batches are
    under way side by side, as `Workers` says, and come in the order of their beginning. When the
    device runs out of memory the batch is halved and nothing is lost. Models that crop their
    slices do not see those in which the ensemble's `lungs_from` finds no lung.

    Parameters
    ----------
    read_slice : callable
        z -> ndarray of int16, shape (y, x); called from several threads.
    model : Model or Ensemble
    order : SliceOrder
    appearance : Appearance
        From `scans.appearance.look`; by default HU.
    spacing : tuple of float, optional
        (y, x) in mm; None where it is unknown.
    batch : int, optional
        Slices per pass; by default what suits the device.
    thresholds : dict of str to float, optional
        Per output; the card's by default.
    probabilities : bool
        Also return the probabilities.
    min_pixels : int
        Findings of fewer pixels are dropped.
    guide : Guide, optional
        Lets corrected slices guide those around them; needs the probabilities, which are then returned.
    notice : callable
        Called with a sentence when the batch was halved; from several threads.
    heartbeat : float, optional
        While no slice is ready an empty list is yielded after so many seconds.

    Yields
    ------
    list of SlicePrediction

    Raises
    ------
    JobError
        If a single slice does not fit into the device's memory.
    """
    ensemble = model if isinstance(model, Ensemble) else Ensemble((model,))
    device = ensemble.device
    with Workers(device) as workers:
        fitting = _Fitting(workers, batch or default_batch(device), device, notice)
        labeller = Labeller(
            read_slice, ensemble, appearance, spacing, thresholds or {}, min_pixels,
            probabilities or guide is not None, workers.share,
        )  # fmt: skip

        def label(zs: list[int]) -> list[SlicePrediction]:
            inferred = fitting.infer(labeller.infer, labeller.prepare(zs))
            return [slice_ for now, given in inferred for slice_ in labeller.label(now, given)]

        def guided(slices: list[SlicePrediction]) -> list[SlicePrediction]:
            return slices if guide is None else [labeller.guided(slice_, guide) for slice_ in slices]

        coming: deque[Future[list[SlicePrediction]]] = deque()

        def begin() -> None:
            # one more than the workers, so that none is idle while its slices are taken away
            while len(coming) <= workers.count and (zs := order.take(fitting.limit)):
                coming.append(workers.submit(partial(label, zs)))

        if zs := order.take(1):  # nothing else begins before it is where a person waits for it
            first = workers.submit_first(partial(label, zs))
            yield from _waiting(first, heartbeat)
            yield guided(first.result())
        begin()
        while coming:
            yield from _waiting(coming[0], heartbeat)
            done = coming.popleft().result()
            begin()
            yield guided(done)


def _waiting(coming: Future[T], heartbeat: float | None) -> Iterator[list[SlicePrediction]]:
    while wait([coming], heartbeat).not_done:
        yield []


class _Fitting:
    """Shows a network as many slices at a time as fit into the memory of its device.

    Parameters
    ----------
    workers : Workers
    limit : int
        Slices to begin with.
    device : torch.device
    notice : callable
        Called with a sentence when there are fewer from now on.
    """

    def __init__(
        self, workers: Workers, limit: int, device: torch.device, notice: Callable[[str], None]
    ) -> None:
        self.limit = limit
        self._alone = False
        self._workers, self._device, self._notice = workers, device, notice
        self._lock = threading.Lock()

    def infer(
        self, infer: Callable[[list[PreparedSlice]], Thresholded], slices: list[PreparedSlice]
    ) -> Iterator[tuple[list[PreparedSlice], Thresholded]]:
        """Yield slices with what the networks give of them, in their order; called from several threads."""
        while slices:
            now, alone = slices[: self.limit], self._alone
            try:
                with self._workers.alone() if alone else self._workers.turn():
                    given = infer(now)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if alone and len(now) == 1:
                    raise JobError(
                        f"One slice does not fit into the memory of {self._device}: "
                        "choose the CPU or close programs."
                    ) from error
            else:
                slices = slices[len(now) :]
                yield now, given
                continue
            self._take_less(len(now))

    def _take_less(self, tried: int) -> None:
        with self._lock:
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if tried == 1 and not self._alone:  # perhaps it fits when nothing else is on the device
                self._alone = True
                self._notify("one slice")
            elif 1 < tried <= self.limit:  # else another thread has done it
                self.limit = tried // 2
                self._notify(f"{self.limit} slices")

    def _notify(self, number: str) -> None:
        self._notice(f"The memory of {self._device} is full: going on with {number} at a time.")


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return (
        "out of memory" in text
        or "can't allocate" in text
        or isinstance(error, MemoryError | torch.OutOfMemoryError)
    )
