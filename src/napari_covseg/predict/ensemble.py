"""Models that speak with one voice: the mean of their probabilities, over mirror images if asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_covseg.errors import ModelError
from napari_covseg.labels import UNITED, joins
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import Model
from napari_covseg.models.forward import as_input, probabilities
from napari_covseg.predict.options import FLIPS, Tta

_MARGIN = 8  # pixels around the lungs that a second look takes in
_STEP, _LEAST = 32, 128  # of its sides: with few shapes the memory of one pass serves the next


@dataclass(frozen=True, eq=False)
class Ensemble:
    """One model or several, with what is asked of all of them.

    Attributes
    ----------
    models : tuple of Model
        All on one device and with the same outputs; each has its own preparation.
    tta : {"card", "none", "lungs", "flip", "flips"}
        See `PredictOptions`; ``"card"`` is what the first model's card says.
    lungs_from : Model, optional
        Finds the lungs in a first pass, for models that crop to them and for those that find none.
    uncertainty : bool
        Whether to say how unsure they are of each voxel.

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
                one, two = (f"{card.id} ({', '.join(card.outputs)})" for card in (first.card, other.card))
                raise ModelError(f"{one} and {two} find different things: choose models that find the same.")
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
    def way(self) -> str:
        """The test-time augmentation: a second look at the lungs only for models that find them."""
        way = self.card.tta if self.tta == "card" else self.tta
        return "none" if way == "lungs" and "lungs" not in self.card.outputs else way

    @property
    def members(self) -> int:
        """How many opinions there are on each voxel."""
        return len(self.models) * len(FLIPS[self.way])

    @property
    def measures(self) -> str:
        """What the uncertainty is: ``"spread"`` of several opinions, ``"entropy"`` of one, or nothing.

        Spread is the standard deviation of the probability of any finding, of which 0.5 becomes
        255; of the entropy 1 bit does.
        """
        if not self.uncertainty:
            return ""
        return "spread" if self.members > 1 else "entropy"

    def opinions(self, model: Model, images: list[npt.NDArray[np.uint8]]) -> Iterator[Tensor]:
        """Yield what a model says of prepared slices, once per pass.

        Yields
        ------
        Tensor, shape (n, outputs, size, size)
            Probabilities in the order of `card`, turned back to the way the slices lie.
        """
        inputs = as_input(np.stack(images), model.device)
        first = self._opinion(model, inputs)
        yield first
        for axes in FLIPS[self.way][1:]:
            if self.way != "lungs":
                yield self._opinion(model, inputs.flip(axes)).flip(axes)
                continue
            again = first.clone()
            if (box := self._around_lungs(first)) is not None:
                again[box] = self._opinion(model, inputs[box].flip(axes)).flip(axes)
            yield again

    def _opinion(self, model: Model, inputs: Tensor) -> Tensor:
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
    return 1 - (1 - first) * (1 - second)


def _span(found: Tensor) -> slice:
    """Return where any of a row is set, with a margin, of one of a few lengths."""
    size = len(found)
    places = found.nonzero()
    begin = max(0, int(places[0]) - _MARGIN)
    length = -(-(int(places[-1]) + 1 + _MARGIN - begin) // _STEP) * _STEP
    length = min(size, max(length, _LEAST))
    begin = min(begin, size - length)
    return slice(begin, begin + length)


def finds_lungs(model: Model) -> bool:
    """Whether a model finds lungs without having been told where they are."""
    return "lungs" in model.card.outputs and model.preparation.crop == "none"
