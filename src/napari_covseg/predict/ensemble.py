"""Models whose mean probability counts, over mirror images if wanted; on the grid of the scan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from napari_covseg.errors import ModelError
from napari_covseg.labels import UNITED, joins
from napari_covseg.metrics.entropy import entropy_map, slice_entropy
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import Model
from napari_covseg.models.forward import as_input, probabilities, restore
from napari_covseg.models.preparation import Placement
from napari_covseg.predict.options import FLIPS, Tta
from napari_covseg.scans.appearance import Appearance

Mask = npt.NDArray[np.uint8]
Adjust = Callable[[Model, list[Mask], Tensor], Tensor]
"""Changes a model's probabilities of prepared slices, (n, outputs, size, size), before they count."""

_MARGIN = 8  # pixels around the lungs that a second look takes in
_LEAST = 128  # of its sides, in pixels
_STEP = 32  # to which its sides are stretched: with few shapes the memory of one pass serves the next


@dataclass(frozen=True, eq=False)
class Ensemble:
    """One model or several, and how they are used.

    Attributes
    ----------
    models : tuple of Model
        All on one device and with the same outputs; each has its own preparation.
    tta : {"card", "none", "lungs", "flip", "flips"}
        See `PredictOptions`; ``"card"`` is what the first model's card says.
    lungs_from : Model, optional
        Finds the lungs in a first pass, for models that crop to them and for those that find none.
    uncertainty : bool
        Whether to give how unsure they are of each voxel.

    Raises
    ------
    ModelError
        If the models find different things, or if one crops to lungs that nobody finds.
    """

    models: tuple[Model, ...]
    tta: Tta = "card"
    lungs_from: Model | None = None
    uncertainty: bool = False

    def __post_init__(self) -> None:
        first, *others = self.models
        for other in others:
            if set(other.card.outputs) != set(first.card.outputs):
                found = [f"{card.id} ({', '.join(card.outputs)})" for card in (first.card, other.card)]
                raise ModelError(
                    f"{' and '.join(found)} find different things: choose models that find the same."
                )
        finder = self.lungs_from
        if finder is not None and not finds_lungs(finder):
            raise ModelError(
                f"The model {finder.card.id} does not find lungs on whole slices: take another for that."
            )
        cropping = [model.card.id for model in self.models if model.preparation.crop != "none"]
        if cropping and finder is None:
            raise ModelError(
                f"The model {cropping[0]} sees slices cropped to the lungs: name a model that finds them."
            )

    @property
    def card(self) -> ModelCard:
        """The card of the first model."""
        return self.models[0].card

    @property
    def device(self) -> torch.device:
        """Where all models are."""
        return self.models[0].device

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """The mean of the cards' thresholds, per output; see `ModelCard.levels`."""
        levels = [model.card.levels for model in self.models]
        return {name: sum(level[name] for level in levels) / len(levels) for name in self.card.levels}

    def finding(self, probability: Tensor) -> Tensor:
        """Return the probability of any finding, (n, y, x); of the lungs where there is nothing else.

        Parameters
        ----------
        probability : Tensor, shape (n, outputs, y, x)
        """
        outputs = self.card.outputs
        found = [channel for channel, name in enumerate(outputs) if name != "lungs"] or [0]
        most = probability[:, found].amax(1)
        return torch.maximum(most, united(probability, outputs)) if joins(outputs) else most

    @property
    def knows_lungs(self) -> bool:
        """Whether the lungs are found, by whichever model."""
        return "lungs" in self.card.outputs or self.lungs_from is not None

    @property
    def augmentation(self) -> str:
        """The test-time augmentation: a second look at the lungs only for models that find them."""
        chosen = self.card.tta if self.tta == "card" else self.tta
        return "none" if chosen == "lungs" and "lungs" not in self.card.outputs else chosen

    @property
    def members(self) -> int:
        """How many passes there are over each voxel, of all models together."""
        return len(self.models) * len(FLIPS[self.augmentation])

    @property
    def measures(self) -> str:
        """What the uncertainty is: ``"spread"`` of several passes, ``"entropy"`` of one, or nothing.

        Spread is the standard deviation of the probability of any finding, of which 0.5 becomes
        255; of the entropy 1 bit does.
        """
        if not self.uncertainty:
            return ""
        return "spread" if self.members > 1 else "entropy"

    def passes(self, model: Model, images: list[Mask]) -> Iterator[Tensor]:
        """Yield a model's probabilities of prepared slices, once per pass.

        Yields
        ------
        Tensor, shape (n, outputs, size, size)
            In the order of the card's outputs, turned back to how the slices lie.
        """
        inputs = as_input(np.stack(images), model.device)
        first = self._pass(model, inputs)
        yield first
        for axes in FLIPS[self.augmentation][1:]:
            if self.augmentation != "lungs":
                yield self._pass(model, inputs.flip(axes)).flip(axes)
                continue
            again = first.clone()
            if (box := self._around_lungs(first)) is not None:
                # stretched, not given more of what lies around: pictures of another source are
                # labelled better so
                part = inputs[box]
                wide = _resized(part, tuple(-(-side // _STEP) * _STEP for side in part.shape[-2:]))
                again[box] = _resized(self._pass(model, wide.flip(axes)).flip(axes), part.shape[-2:])
            yield again

    def _pass(self, model: Model, inputs: Tensor) -> Tensor:
        return probabilities(model.network, inputs, self.card.outputs)

    def _around_lungs(self, probability: Tensor) -> tuple[slice | EllipsisType, ...] | None:
        """Return the part of the slices, shape (n, outputs, size, size), in which any has lung."""
        found = (probability[:, self.card.outputs.index("lungs")] >= self.thresholds["lungs"]).any(0)
        if not bool(found.any()):
            return None
        return (..., *(_span(found.any(axis)) for axis in (1, 0)))


def united(probability: Tensor, outputs: tuple[str, ...]) -> Tensor:
    """Return the probability of ground-glass or consolidation, (n, y, x), of (n, outputs, y, x)."""
    first, second = (probability[:, outputs.index(name)] for name in UNITED)
    return torch.addcmul(first + second, first, second, value=-1)  # 1 - (1 - p)(1 - q)


def _span(found: Tensor) -> slice:
    """Return where any of a row is set, with a margin."""
    size = len(found)
    places = found.nonzero()
    begin, end = max(0, int(places[0]) - _MARGIN), min(size, int(places[-1]) + 1 + _MARGIN)
    length = max(end - begin, min(size, _LEAST))
    begin = max(0, min((begin + end - length) // 2, size - length))
    return slice(begin, begin + length)


def _resized(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return values on another grid, (n, channels, *shape)."""
    if tuple(values.shape[-2:]) == tuple(shape):
        return values
    return interpolate(values, tuple(shape), mode="bilinear", align_corners=False)


def finds_lungs(model: Model) -> bool:
    """Whether a model finds lungs on whole slices."""
    return "lungs" in model.card.outputs and model.preparation.crop == "none"


class View(NamedTuple):
    """A slice as one model sees it: the picture, and where it lies in the scan."""

    placement: Placement
    image: Mask


class PreparedSlice(NamedTuple):
    """A slice as all models see it.

    Attributes
    ----------
    z : int
    voxels : ndarray of int16, shape (y, x)
        Upright, see `models.preparation.reorient`.
    views : tuple of View or None
        One per model; None where there is nothing for it to see.
    lungs : ndarray of uint8, shape (y, x), or None
        What the first pass has found, if there was one.
    """

    z: int
    voxels: npt.NDArray[np.int16]
    views: tuple[View | None, ...]
    lungs: Mask | None = None


class Inferred(NamedTuple):
    """What the networks give of a batch of slices.

    Attributes
    ----------
    probability : Tensor, shape (n, outputs, y, x)
        On the slices' grid, on the ensemble's device.
    uncertainty : list of ndarray of uint8, shape (y, x), or None
        How unsure the ensemble is of any finding, see `Ensemble.measures`.
    entropies : list of float
        Of the probability of any finding, in bits summed over a slice's pixels; NaN if unknown.
    """

    probability: Tensor
    uncertainty: list[Mask | None]
    entropies: list[float]


class _Mean(NamedTuple):
    """The mean of a model's passes, and of any finding their mean and variance."""

    probability: Tensor
    finding: Tensor | None = None
    variance: Tensor | None = None


def view(
    model: Model, voxels: npt.NDArray[np.int16], appearance: Appearance, lungs: Mask | None = None
) -> View | None:
    """Prepare a slice, shape (y, x), for a model; None where it has nothing to see.

    Parameters
    ----------
    model : Model
    voxels : ndarray of int16, shape (y, x)
    appearance : Appearance
    lungs : ndarray of uint8, shape (y, x), optional
        Not 0 where the first pass has found lung.
    """
    placement = model.preparation.place(voxels.shape, lungs)
    if placement is None:
        return None
    return View(
        placement, model.preparation(voxels, appearance.intensity, placement, equalised=appearance.equalised)
    )


@torch.inference_mode()
def infer(ensemble: Ensemble, slices: list[PreparedSlice], adjust: Adjust | None = None) -> Inferred:
    """Run the networks.

    Parameters
    ----------
    ensemble : Ensemble
    slices : list of PreparedSlice
    adjust : callable, optional
        Changes each model's mean probability on its own grid.
    """
    height, width = slices[0].voxels.shape
    shape = (height, width)
    means, coarse = [], None
    for number, model in enumerate(ensemble.models):
        views = [slice_.views[number] for slice_ in slices]
        mean = _of_model(ensemble, model, [view.image for view in views if view is not None], adjust)
        if len(ensemble.models) == 1 and _all_whole(views):
            coarse = None if mean is None else mean.probability
        means.append(_on_scan(ensemble, mean, views, shape))
    probability = _mean([mean.probability for mean in means])
    none: list[Mask | None] = [None] * len(slices)
    return Inferred(
        probability,
        list(_uncertainty(ensemble, means)) if ensemble.uncertainty else none,
        _entropies(ensemble, probability if coarse is None else coarse, shape),
    )


def as_bytes(share: Tensor) -> Mask:
    """Return shares of 1 as uint8, of which 255 is 1."""
    return np.asarray(share.mul(255).round_().byte().cpu().numpy(), np.uint8)


def _of_model(ensemble: Ensemble, model: Model, images: list[Mask], adjust: Adjust | None) -> _Mean | None:
    """Return the mean of a model's passes, on its own grid; None if it has nothing to see."""
    if not images:
        return None
    passes = list(ensemble.passes(model, images))
    mean = _mean(passes) if adjust is None else adjust(model, images, _mean(passes))
    if not ensemble.uncertainty:
        return _Mean(mean)
    found = torch.stack([ensemble.finding(output) for output in passes], 1)
    return _Mean(mean, found.mean(1, keepdim=True), found.var(1, correction=0, keepdim=True))


def _on_scan(
    ensemble: Ensemble, mean: _Mean | None, views: list[View | None], shape: tuple[int, int]
) -> _Mean:
    """Bring what a model gives to the scan's grid; 0 where it has not seen the slice."""
    if mean is None:
        nothing = torch.zeros(len(views), len(ensemble.card.outputs), *shape, device=ensemble.device)
        empty = nothing[:, :1] if ensemble.uncertainty else None
        return _Mean(nothing, empty, empty)
    return _Mean(*(None if values is None else _restored(values, views, shape) for values in mean))  # type: ignore[arg-type]


def _restored(values: Tensor, views: list[View | None], shape: tuple[int, int]) -> Tensor:
    first = views[0]
    if first is not None and all(view is not None and view.placement == first.placement for view in views):
        return restore(values, first.placement)
    full = values.new_zeros((len(views), values.shape[1], *shape))
    parts = iter(values.split(1))
    for row, view in enumerate(views):
        if view is not None:
            full[row] = restore(next(parts), view.placement)[0]
    return full


def _all_whole(views: list[View | None]) -> bool:
    return all(
        view is not None and (view.placement.height, view.placement.width) == view.placement.shape
        for view in views
    )


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(0)


def _uncertainty(ensemble: Ensemble, means: list[_Mean]) -> Mask:
    """Return how far the passes lie apart on a finding, uint8 (n, y, x).

    Their standard deviation, of which 0.5 is the most that there can be and becomes 255. Of
    one pass alone it is the entropy, of which 1 bit becomes 255.
    """
    findings = torch.cat([mean.finding for mean in means if mean.finding is not None], 1)
    if ensemble.members == 1:
        return entropy_map(as_bytes(findings[:, 0]))
    # the variance of all is that inside of each model and that between them
    within = torch.cat([mean.variance for mean in means if mean.variance is not None], 1).mean(1)
    return as_bytes(2 * (within + findings.var(1, correction=0)).sqrt())


def _entropies(ensemble: Ensemble, probability: Tensor, shape: tuple[int, int]) -> list[float]:
    """Entropy of each slice, counted on the grid of the probabilities and given for the scan's."""
    if len(ensemble.card.outputs) == 1 and "lungs" in ensemble.card.outputs:
        return [math.nan] * len(probability)
    findings = as_bytes(ensemble.finding(probability))
    side = max(probability.shape[-2:])
    pixels = (max(shape) / side) ** 2
    return [pixels * slice_entropy(finding) for finding in findings]
