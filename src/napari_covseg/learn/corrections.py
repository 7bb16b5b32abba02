"""What a person has corrected or accepted in a case, as a model wants it, and which of it is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.case import REVIEWED, Case, Review, Touch
from napari_covseg.errors import ModelError
from napari_covseg.labels import GROUPS, LESIONS, UNION, UNITED, joins, lesion
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices, SliceId, shrink
from napari_covseg.models.card import ModelCard
from napari_covseg.models.preparation import Preparation, reorient

Mask = npt.NDArray[np.uint8]
Side = Literal["learned", "held-out"]
HOLD_OUT_FROM = 4
"""Corrected slices from which at least one is held out."""


def reviewed(case: Case, states: Iterable[Review] = REVIEWED) -> list[int]:
    """Return the slices of a case in these states of review. Raises CaseError."""
    return [int(z) for z in np.flatnonzero(np.isin(case.review, list(states)))]


def labelled_slices(case: Case, slices: Iterable[int], card: ModelCard) -> LabelledSlices:
    """Read slices of a case with their live labels, prepared for a model.

    What a tool has spread there teaches nothing, unless a person has accepted the slice.

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
    masks = np.zeros((len(zs), len(outputs), size, size), np.uint8)
    appearance, review = case.appearance, case.review
    for row, z in enumerate(zs):
        slice_ = reorient(case.read_slice(z), appearance)  # as Run shows it to the model
        images[row] = preparation(slice_, case.intensity, equalised=appearance.equalised)
        turned = replace(appearance, inverted=False)
        lungs, lesions = (
            reorient(case.read_labels(group, z), turned, around=0) for group in ("lungs", "lesions")
        )
        masks[row] = targets_of(lungs, lesions, outputs, size)
        if review[z] == Review.ACCEPTED:
            continue
        for group in GROUPS:
            spread = reorient(case.read_touched(group, z), turned, around=0) == Touch.SPREAD
            if spread.any():
                mine = [(name == "lungs") == (group == "lungs") for name in outputs]
                masks[row, mine] = np.where(shrink(spread, size), np.uint8(UNKNOWN), masks[row, mine])
    patients, numbers = np.full(len(zs), case.id), np.array(zs, np.int_)
    return LabelledSlices(images, masks, patients, outputs, numbers=numbers)


def check_whole(card: ModelCard) -> None:
    """Raise ModelError for a model that sees only the lungs: what was corrected may lie outside."""
    if Preparation.from_card(card.preparation).crop != "none":
        raise ModelError(
            f"The model {card.id} sees slices cropped to the lungs and cannot learn from corrections: "
            "choose one that sees whole slices."
        )


def targets_of(lungs: Mask, lesions: Mask, outputs: tuple[str, ...], size: int) -> Mask:
    """Map labels to the outputs of a model; `UNKNOWN` where they do not count.

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
    ndarray of uint8, shape (outputs, size, size)
        See `LabelledSlices.masks`.
    """
    masks = np.zeros((len(outputs), size, size), np.uint8)
    rest = [label.value for label in LESIONS if label.name not in outputs and label.inside_lungs]
    for mask, name in zip(masks, outputs, strict=True):
        if name == "lungs":
            mask[shrink(lungs > 0, size)] = 1
            continue
        values = [label.value for label in LESIONS if label.name == name]
        takes_rest = name == UNION or (name == UNITED[0] and joins(outputs))
        mask[shrink(np.isin(lesions, values + rest * takes_rest), size)] = 1
        if UNION not in outputs and not takes_rest:
            mask[shrink(np.isin(lesions, rest), size)] = UNKNOWN
    return masks


def as_said_by(card: ModelCard, lesions: Mask) -> Mask:
    """Return lesion labels with the values that a model would give them, as `targets_of` maps them."""
    if "lesion" not in card.outputs:
        return lesions
    rest = [label.value for label in LESIONS if label.name not in card.outputs and label.inside_lungs]
    return np.where(np.isin(lesions, rest), np.uint8(lesion("lesion").value), lesions)


def choose_sides(
    ids: Iterable[SliceId], known: Mapping[SliceId, Side] | None = None, fraction: float = 0.2
) -> dict[SliceId, Side]:
    """Say of each slice whether it is learned from or held out; a side once taken is kept for good.

    Which of the new slices are held out depends only on a hash of their ids, never on their
    order or on a random generator.

    Parameters
    ----------
    ids : iterable of (str, int)
    known : mapping, optional
        Sides from earlier fine-tunings.
    fraction : float
        Share to hold out, 0 to below 1; rounded down, but with `HOLD_OUT_FROM` slices at
        least one. 0 holds none of the new ones out.

    Returns
    -------
    dict
        The side of every slice in `ids`.
    """
    wanted = sorted(set(ids))
    sides: dict[SliceId, Side] = {id_: known[id_] for id_ in wanted if id_ in known} if known else {}
    share = 0
    if fraction > 0 and len(wanted) >= HOLD_OUT_FROM:
        share = max(1, int(fraction * len(wanted)))
    new = sorted((id_ for id_ in wanted if id_ not in sides), key=rank)
    missing = max(0, share - sum(side == "held-out" for side in sides.values()))
    for place, id_ in enumerate(new):
        sides[id_] = "held-out" if place < missing else "learned"
    return sides


def rank(id_: SliceId) -> tuple[bytes, SliceId]:
    """Order that looks random, and is the same on every machine and in every session."""
    return hashlib.sha256(f"{id_[0]}/{id_[1]}".encode()).digest(), id_


def split(slices: LabelledSlices, sides: Mapping[SliceId, Side]) -> tuple[LabelledSlices, LabelledSlices]:
    """Return the slices to learn from, and those that are held out, by `choose_sides`."""
    held_out = np.array([sides[id_] == "held-out" for id_ in slices.ids], np.bool_)
    return slices.rows(~held_out), slices.rows(held_out)
