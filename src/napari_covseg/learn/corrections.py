"""What a person has corrected or accepted in a case, as a model wants it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.case import Case, Review
from napari_covseg.errors import ModelError
from napari_covseg.labels import LESIONS, UNION, UNITED, joins, lesion
from napari_covseg.learn.labelled import LabelledSlices
from napari_covseg.learn.training_set import shrink
from napari_covseg.models.card import ModelCard
from napari_covseg.models.preparation import Preparation
from napari_covseg.scans.appearance import upright

Mask = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]


def reviewed(case: Case, states: Iterable[Review] = (Review.CORRECTED, Review.ACCEPTED)) -> list[int]:
    """Return the slices of a case in these states of review. Raises CaseError."""
    return [int(z) for z in np.flatnonzero(np.isin(case.review, list(states)))]


def labelled_slices(case: Case, slices: Iterable[int], card: ModelCard) -> LabelledSlices:
    """Read slices of a case with their live labels, prepared for a model.

    Parameters
    ----------
    case : Case
    slices : iterable of int
    card : ModelCard
        Its outputs are what the labels are mapped to; see `targets_of`.

    Raises
    ------
    CaseError
        If the case cannot be read.
    ModelError
        If the model does not see whole slices.
    """
    check_whole(card)
    preparation = Preparation.from_card(card.preparation)
    zs = list(slices)
    size, outputs = preparation.size, card.outputs
    images = np.zeros((len(zs), size, size), np.uint8)
    targets, valid = (np.zeros((len(zs), len(outputs), size, size), np.bool_) for _ in range(2))
    appearance = case.appearance
    for row, z in enumerate(zs):
        slice_ = upright(case.read_slice(z), appearance)
        images[row] = preparation(slice_, case.intensity, equalised=appearance.equalised)
        turned = replace(appearance, inverted=False)
        lungs, lesions = (upright(case.read_labels(group, z), turned) for group in ("lungs", "lesions"))
        targets[row], valid[row] = targets_of(lungs, lesions, outputs, size)
    return LabelledSlices(images, targets, tuple((case.id, z) for z in zs), valid)


def check_whole(card: ModelCard) -> None:
    """Raise ModelError for a model that sees only the lungs: what was corrected may lie outside."""
    if Preparation.from_card(card.preparation).crop != "none":
        raise ModelError(
            f"The model {card.id} sees slices cropped to the lungs and cannot learn from corrections: "
            "choose one that sees whole slices."
        )


def targets_of(lungs: Mask, lesions: Mask, outputs: tuple[str, ...], size: int) -> tuple[Masks, Masks]:
    """Map labels to the outputs of a model, and say where they count.

    An output gets the label of its name. A label without an output of its own belongs to
    the output "lesion" if it lies inside the lungs; where there is none either, nothing is
    learned about lesions there. A lesion that a person has not told apart is ground-glass to a model
    that does so, as most are, and teaches it nothing about consolidation.

    Parameters
    ----------
    lungs, lesions : ndarray of uint8, shape (y, x)
        Label values.
    outputs : tuple of str
        Names of a card.
    size : int
        Height and width of a prepared slice.

    Returns
    -------
    targets, valid : ndarray of bool, shape (outputs, size, size)
    """
    targets, valid = (
        np.zeros((len(outputs), size, size), np.bool_),
        np.ones((len(outputs), size, size), np.bool_),
    )
    rest = [label.value for label in LESIONS if label.name not in outputs and label.inside_lungs]
    for channel, name in enumerate(outputs):
        if name == "lungs":
            targets[channel] = shrink(lungs > 0, size)
            continue
        values = [label.value for label in LESIONS if label.name == name]
        meant = name == UNION or (name == UNITED[0] and joins(outputs))
        targets[channel] = shrink(np.isin(lesions, values + rest * meant), size)
        if UNION not in outputs and not meant:
            valid[channel] = ~shrink(np.isin(lesions, rest), size)
    return targets, valid


def as_said_by(card: ModelCard, lesions: Mask) -> Mask:
    """Return lesion labels with the values that a model would give them, as `targets_of` maps them."""
    if "lesion" not in card.outputs:
        return lesions
    rest = [label.value for label in LESIONS if label.name not in card.outputs and label.inside_lungs]
    return np.where(np.isin(lesions, rest), np.uint8(lesion("lesion").value), lesions)
