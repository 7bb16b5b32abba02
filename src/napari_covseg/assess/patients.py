"""Patients with truth, each with a model that has never seen the patient."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ModelError, ScanError
from napari_covseg.learn.corrections import check_whole
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.learn.training_set import read_training_set
from napari_covseg.models.card import ModelCard, read_card
from napari_covseg.models.preparation import Preparation

_SIZE = 256
"""Height and width that slices are read at, before a model's own preparation."""

Images = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Patient:
    """Slices of one patient, ready for the network.

    Attributes
    ----------
    name : str
    images : ndarray of uint8, shape (z, size, size)
    lesions : ndarray of uint8, shape (z, size, size)
        The truth, as label values.
    """

    name: str
    images: Images
    lesions: Mask


@dataclass(frozen=True, eq=False)
class Assessed:
    """What an assessment of one patient starts from.

    Attributes
    ----------
    patient : Patient
        Never seen by the model.
    model : Path
        The model file.
    memory : ndarray of uint8, shape (n, size, size)
        Slices of some patients that were labelled before, as a workspace has them; without
        their truth.
    accepted : tuple of Patient
        Other slices of these, as accepted in such a workspace: what a version is not to forget.
    known : tuple of Patient
        A fixed sample of slices of other patients that the model learned from: what may be
        forgotten.
    unseen : tuple of Patient
        The same of the other patients that the model was tested on.
    """

    patient: Patient
    model: Path
    memory: Images
    known: tuple[Patient, ...]
    unseen: tuple[Patient, ...] = ()
    accepted: tuple[Patient, ...] = ()


def read_assessed(
    data: str | os.PathLike[str],
    models: str | os.PathLike[str],
    names: Sequence[str] = (),
    *,
    memory: int = 4,
    known: int = 3,
) -> list[Assessed]:
    """Find, for each patient, a model that has never seen the patient.

    The patients that the model knows are divided in two: every other one that it learned
    from, with those that chose its weights, is what a fine-tuning may rehearse, and the rest
    is where forgetting is measured; it is also measured on patients that it does not know.

    Parameters
    ----------
    data : path
        For `learn.training_set.read_training_set`.
    models : path
        Folder of model files whose cards name their training, validation and test patients.
    names : sequence of str
        Patients to assess; by default all that a model was tested on.
    memory, known : int
        Slices with lesions, evenly spaced, of each patient that is rehearsed, and of each
        that forgetting is measured on.

    Raises
    ------
    ModelError
        If no model keeps a patient out, or it sees only the lungs.
    ScanError
        If the data has no such patient.
    """
    slices = read_training_set(data, size=_SIZE)
    folder = Path(models)
    cards = {path: read_card(path) for path in sorted(folder.glob("*.safetensors"))}
    if not cards:
        raise ModelError(f"{folder} holds no model files: give the folder of the fold models.")
    there = set(slices.patients.tolist())
    kept_out = {name for card in cards.values() for name in card.split.get("test", [])} & there
    wanted = list(dict.fromkeys(names)) or sorted(kept_out)
    if unknown := set(wanted) - there:
        raise ScanError(
            f"The data has no patient {', '.join(sorted(unknown))}: it has {', '.join(sorted(there))}."
        )
    prepared: dict[str, LabelledSlices] = {}
    assessed = []
    for name in wanted:
        path, card = _model_for(name, cards)
        check_whole(card)
        key = repr(sorted(card.preparation.items()))
        if key not in prepared:  # fold models have one preparation
            prepared = {key: slices.prepared(Preparation.from_card(card.preparation))}
        assessed.append(_assessed(prepared[key], name, path, card, memory, known))
    return assessed


def _model_for(name: str, cards: dict[Path, ModelCard]) -> tuple[Path, ModelCard]:
    for path, card in cards.items():
        seen = {*card.split.get("training", []), *card.split.get("validation", [])}
        if name in card.split.get("test", []) and name not in seen:
            return path, card
    raise ModelError(f"No model there keeps {name} out: give the folder of the fold models.")


def _assessed(
    slices: LabelledSlices, name: str, path: Path, card: ModelCard, memory: int, known: int
) -> Assessed:
    learned = sorted(name for name in card.split.get("training", []) if _sample(slices, name, 1))
    rehearsed = [*learned[::2], *card.split.get("validation", [])]
    shown = [part.images for name in rehearsed for part in _sample(slices, name, memory)]
    others = sorted(set(card.split.get("test", [])) - {name})
    empty = np.zeros((0, *slices.images.shape[1:]), np.uint8)
    return Assessed(
        patient=_patient(slices, name),
        model=path,
        memory=np.concatenate([empty, *shown]),
        known=tuple(part for name in learned[1::2] for part in _sample(slices, name, known)),
        unseen=tuple(part for name in others for part in _sample(slices, name, known)),
        accepted=tuple(part for name in rehearsed for part in _sample(slices, name, memory + 1)),
    )


def _sample(slices: LabelledSlices, name: str, number: int) -> list[Patient]:
    """Return a few slices with lesions of a patient; none if the patient has none."""
    patient = _patient(slices, name)
    with_lesions = np.flatnonzero(patient.lesions.any((1, 2)))
    if not len(with_lesions):
        return []
    rows = with_lesions[evenly(len(with_lesions), number)]
    return [Patient(name, patient.images[rows], patient.lesions[rows])]


def _patient(slices: LabelledSlices, name: str) -> Patient:
    mine = slices.only({name})
    mine = mine.rows((mine.masks[:, 1] != UNKNOWN).any((1, 2)))  # of others the truth is not known
    return Patient(name, mine.images.astype(np.uint8), (mine.masks[:, 1] == 1).astype(np.uint8))


def evenly(count: int, number: int) -> npt.NDArray[np.intp]:
    """Return up to `number` evenly spaced rows of `count`."""
    number = min(number, count)
    return ((np.arange(number) + 0.5) * count / max(1, number)).astype(np.intp)
