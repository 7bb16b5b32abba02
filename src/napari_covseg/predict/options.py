"""How a scan is to be labelled: plain settings, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from napari_covseg.labels import UNITED, joins
from napari_covseg.models.card import ModelCard

Tta = Literal["card", "none", "lungs", "flip", "flips"]
FLIPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "lungs": ((), (-1,)),
    "flip": ((), (-1,)),
    "flips": ((), (-1,), (-2,), (-2, -1)),
}
"""Axes that are mirrored in each pass of the test-time augmentation: -1 is x, -2 is y."""

Rule = Literal[
    "gas or fat",  # see hounsfield.drop_gas_and_fat
    "vessels",  # see hounsfield.keep_raised
    "hilum",
    "fat findings",
    "small lungs",  # see clean.clean_slice
    "holes",
    "small findings",
    "inside",
]
"""What is put right in a network's labels of a slice, by name, so that each can be left out and measured."""
RULES: frozenset[Rule] = frozenset(get_args(Rule))
"""All of them, which is what a scan gets; each has its row in the results."""


@dataclass(frozen=True)
class PredictOptions:
    """What a person may choose for a prediction beside the model.

    Attributes
    ----------
    threshold : float, optional
        Probability from which a voxel is a lesion; None takes the model card's.
    tta : {"card", "none", "lungs", "flip", "flips"}
        Test-time augmentation: as the model card says, or none; the mean over the slice and, only
        around the lungs that were found there, its mirror image, a little enlarged (1 pass and a
        half); or over the slice and its mirror image (2 passes), or over both mirror images and
        both at once (4 passes), each turned back.
    also : tuple of str
        Further models, named as the first: the mean of all probabilities counts.
    lungs_from : str, optional
        Model whose lungs a model that crops its slices is shown, and which stand for those of a
        model that finds none; None takes the default model where a crop needs it.
    min_ml : float
        Findings of less are dropped, in 3-D; needs the size of a voxel.
    min_pixels : int
        Findings of fewer pixels in a slice are dropped.
    uncertainty : bool
        Whether to keep how unsure the models are of each voxel.
    anyway : bool
        Label also what does not look like a chest CT.
    seen_as : tuple of (str, value)
        What a person says of how the scan looks, see `scans.appearance.Appearance.overruled`.
    """

    threshold: float | None = None
    tta: Tta = "card"
    also: tuple[str, ...] = ()
    lungs_from: str | None = None
    min_ml: float = 0.0
    min_pixels: int = 0
    uncertainty: bool = False
    anyway: bool = False
    seen_as: tuple[tuple[str, bool | int | str | None], ...] = ()

    def levels(self, card: ModelCard) -> dict[str, float]:
        """Return the thresholds of a card's lesion outputs where they are not the card's.

        Which of ground-glass and consolidation a voxel is, where their union decides whether it is one
        of them, stays as the card has it.
        """
        named = ("lungs", *UNITED) if joins(card.outputs) else ("lungs",)
        found = [name for name in card.levels if name not in named]
        return {} if self.threshold is None else dict.fromkeys(found, self.threshold)


PLAIN = PredictOptions()
"""One model, as its card says."""
