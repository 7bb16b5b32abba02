"""Scan in, labelled slices out, a few at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from functools import partial
from typing import TypeVar

import torch

from napari_covseg.errors import JobError
from napari_covseg.models.file import Model
from napari_covseg.models.forward import heads
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.forward import Looked, Said
from napari_covseg.predict.labeller import Labeller, ReadSlice, SlicePrediction
from napari_covseg.predict.lanes import Lanes
from napari_covseg.predict.order import SliceOrder
from napari_covseg.scans.appearance import HOUNSFIELD, Appearance

_log = logging.getLogger(__name__)

T = TypeVar("T")


def default_batch(device: torch.device) -> int:
    """Slices per pass: many on a GPU; on a CPU one, as several passes go on side by side."""
    return {"cuda": 32, "cpu": 1}.get(device.type, 4)


def rehearse(model: Model) -> None:
    """Run the network on empty slices, so that the first real ones need not wait.

    The first pass of a network chooses its kernels and takes the memory that later ones use again.
    """
    size = model.preparation.size

    @torch.inference_mode()
    def once() -> None:
        slices = torch.zeros(default_batch(model.device), 1, size, size, device=model.device)
        with lanes.turn():
            heads(model.network, slices)

    with Lanes(model.device) as lanes:
        try:
            lanes.submit_first(once).result()
            for trial in [lanes.submit(once) for _ in range(lanes.count)]:
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
    notice: Callable[[str], None] = _log.warning,
    heartbeat: float | None = None,
) -> Generator[list[SlicePrediction], None, None]:
    """Label the slices that `order` hands out, nearest to its focus first.

    The first batch is a single slice, so that it appears at once. After it several batches are
    under way side by side, as `Lanes` says, and come in the order of their beginning. When the
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
    notice : callable
        Told in a sentence when the batch was halved; called from several threads.
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
    levels = {**ensemble.thresholds, **(thresholds or {})}
    device = ensemble.device
    with Lanes(device) as lanes:
        fitting = _Fitting(lanes, batch or default_batch(device), device, notice)
        labeller = Labeller(
            read_slice, ensemble, levels, appearance, spacing, probabilities, min_pixels, lanes.share
        )

        def label(zs: list[int]) -> list[SlicePrediction]:
            asked = fitting.ask(labeller.ask, labeller.look(zs))
            return [slice_ for now, said in asked for slice_ in labeller.clean(now, said)]

        coming: deque[Future[list[SlicePrediction]]] = deque()

        def begin() -> None:
            # one more than the lanes, so that none is idle while its slices are taken away
            while len(coming) <= lanes.count and (zs := order.take(fitting.limit)):
                coming.append(lanes.submit(partial(label, zs)))

        if zs := order.take(1):  # nothing else begins before it is where a person waits for it
            first = lanes.submit_first(partial(label, zs))
            yield from _waiting(first, heartbeat)
            yield first.result()
        begin()
        while coming:
            yield from _waiting(coming[0], heartbeat)
            done = coming.popleft().result()
            begin()
            yield done


def _waiting(coming: Future[T], heartbeat: float | None) -> Iterator[list[SlicePrediction]]:
    while wait([coming], heartbeat).not_done:
        yield []


class _Fitting:
    """Shows a network as many slices at a time as fit into the memory of its device.

    Parameters
    ----------
    lanes : Lanes
    limit : int
        Slices to begin with.
    device : torch.device
    notice : callable
        Told in a sentence when there are fewer from now on.
    """

    def __init__(self, lanes: Lanes, limit: int, device: torch.device, notice: Callable[[str], None]) -> None:
        self.limit = limit
        self._alone = False
        self._lanes, self._device, self._notice = lanes, device, notice
        self._lock = threading.Lock()

    def ask(
        self, ask: Callable[[list[Looked]], Said], slices: list[Looked]
    ) -> Iterator[tuple[list[Looked], Said]]:
        """Yield slices with what is said of them, in their order; called from several threads."""
        while slices:
            now, alone = slices[: self.limit], self._alone
            try:
                with self._lanes.alone() if alone else self._lanes.turn():
                    said = ask(now)
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
                yield now, said
                continue
            self._take_less(len(now))

    def _take_less(self, tried: int) -> None:
        with self._lock:
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if tried == 1 and not self._alone:  # perhaps it fits when nothing else is on the device
                self._alone = True
                self._tell("one slice")
            elif 1 < tried <= self.limit:  # else another thread has done it
                self.limit = tried // 2
                self._tell(f"{self.limit} slices")

    def _tell(self, number: str) -> None:
        self._notice(f"The memory of {self._device} is full: going on with {number} at a time.")


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    told = "out of memory" in text or "can't allocate" in text
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)
