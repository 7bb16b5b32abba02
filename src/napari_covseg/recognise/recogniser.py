"""Slices in, probabilities and heat maps out: nearest to the slice on screen first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from napari_covseg.errors import ModelError
from napari_covseg.models.file import Model
from napari_covseg.models.forward import as_input, probabilities, to_probabilities
from napari_covseg.models.preparation import as_shown
from napari_covseg.networks.classifier import Classifier
from napari_covseg.recognise.heat_map import grad_cam, on_slice
from napari_covseg.scans.appearance import Appearance, shape, upright
from napari_covseg.scans.scan import LUNG_WINDOW, in_window

T = TypeVar("T")
Slice = npt.NDArray[Any]
LEAST_LUNG = 0.02
"""Of a slice's area: with less it is answered by none."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network says of a slice.

    Attributes
    ----------
    z : int
    probabilities : tuple of float
        In the order of the outputs; NaN for a slice without lung, of which nothing was asked.
    heat : ndarray of uint8, shape (outputs, *answers.heat_grid(slice.shape)), or None
        Where each output comes from; the brightest place is as bright as it is likely, and 255 is certain.
    """

    z: int
    probabilities: tuple[float, ...]
    heat: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Recogniser:
    """A model that names what slices of one scan show.

    Attributes
    ----------
    model : Model
    appearance : Appearance
        A picture is shown to the network upright and with air in black. One that names manifestations sees it
        as one that labels does; one that recognises without a margin and always equalised, as it has learned:
        with a margin around cropped slices it tells COVID-19 from others less well (AUC 0.77 for 0.80, on 441
        slices as pictures).
    window : tuple of float, optional
        The grey values that an X-ray's file wants to be shown black and white.

    Raises
    ------
    ModelError
        If the model labels pixels, or sees slices cropped to lungs, which nobody has found here.
    """

    model: Model
    appearance: Appearance
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model.network, Classifier):
            raise ModelError(
                f"The model {self.model.card.id} labels pixels, it recognises nothing: choose another."
            )
        if self.model.preparation.crop != "none":
            raise ModelError(
                f"The model {self.model.card.id} sees slices cropped to the lungs, which nobody has found: "
                "choose one that sees whole slices."
            )

    @property
    def seen_as(self) -> Appearance:
        """How a slice is shown to the network."""
        if self.model.card.task == "manifestations":
            return self.appearance
        return replace(self.appearance, cropped=False, contrast=None)

    def prepare(self, slice_: Slice) -> npt.NDArray[np.uint8]:
        """Return a slice (y, x) as the network sees it, (size, size)."""
        appearance = self.seen_as
        if self.window is not None:
            slice_, appearance = in_window(slice_, self.window), replace(appearance, bits=8)
        return as_shown(slice_, appearance, self.model.preparation)

    def answer(self, zs: Sequence[int], slices: Sequence[Slice], *, heat_maps: bool) -> list[Answer]:
        """Return what the network says of slices, each (y, x)."""
        model, card = self.model, self.model.card
        inputs = as_input(np.stack([self.prepare(slice_) for slice_ in slices]), model.device)
        if not heat_maps:
            with torch.inference_mode():
                sure = probabilities(model.network, inputs, card.outputs, card.task).cpu().tolist()
            return [Answer(z, tuple(one)) for z, one in zip(zs, sure, strict=True)]
        assert isinstance(model.network, Classifier)
        logits, maps = grad_cam(model.network, inputs, card.outputs)
        likely = to_probabilities(logits, card.task)
        heat = maps * likely[..., None, None]
        return [
            Answer(z, tuple(one.tolist()), on_slice(places, slice_.shape, self.seen_as, model.preparation))
            for z, one, places, slice_ in zip(zs, likely, heat, slices, strict=True)
        ]

    def nothing(self, z: int) -> Answer:
        """Return the answer for a slice that is not asked about."""
        return Answer(z, (float("nan"),) * len(self.model.card.outputs))


def shows_lung(slice_: Slice, appearance: Appearance) -> bool:
    """Whether there is lung in a slice (y, x), by the rule by which scans are looked at; ever in an X-ray."""
    if appearance.kind != "chest CT":
        return True
    if appearance.intensity == "HU":
        grey = in_window(slice_, LUNG_WINDOW)
    else:
        grey = in_window(upright(slice_, appearance), (0, 2**appearance.bits - 1))
    return float(shape(grey).lungs.mean()) >= LEAST_LUNG


class Workers(Protocol):
    """Threads that share the cores, as `predict.slices.Workers`."""

    count: int

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do some work in the next one that is free."""


def recognise_slices(
    read_slice: Callable[[int], Slice],
    recognisers: Sequence[Recogniser],
    take: Callable[[int], list[int]],
    has_lung: Callable[[int, Slice], bool],
    workers: Workers,
    *,
    batch: int = 1,
    heat_maps: bool = False,
    heartbeat: float | None = None,
) -> Generator[list[tuple[Recogniser, Answer]], None, None]:
    """Yield what models say of slices, several at a time, in the order in which they were taken.

    Parameters
    ----------
    read_slice : callable
        z -> ndarray, shape (y, x); called from several threads.
    recognisers : sequence of Recogniser
        All are asked about a slice at once.
    take : callable
        Returns up to so many slices that are to be next; none when all are taken.
    has_lung : callable
        Whether anything is asked about slice z, which is given too.
    workers : Workers
    batch : int
        Slices per pass; the first is alone, because a person waits for it.
    heat_maps : bool
    heartbeat : float, optional
        While no slice is ready an empty list is yielded after so many seconds.

    Yields
    ------
    list of (Recogniser, Answer)
    """

    def work(zs: list[int]) -> list[tuple[Recogniser, Answer]]:
        slices = {z: read_slice(z) for z in zs}
        asked = [z for z in zs if has_lung(z, slices[z])]
        found = [(one, one.nothing(z)) for z in zs if z not in asked for one in recognisers]
        for one in recognisers if asked else ():
            answers = one.answer(asked, [slices[z] for z in asked], heat_maps=heat_maps)
            found += [(one, answer) for answer in answers]
        return found

    coming: deque[Future[list[tuple[Recogniser, Answer]]]] = deque()
    number, most = 1, 1
    while True:
        # one more than the workers, so that none is idle while its slices are taken away
        while len(coming) < most and (zs := take(number)):
            coming.append(workers.submit(partial(work, zs)))
        if not coming:
            return
        while wait([coming[0]], heartbeat).not_done:
            yield []
        yield coming.popleft().result()
        number, most = batch, workers.count + 1
