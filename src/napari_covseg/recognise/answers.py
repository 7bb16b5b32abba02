"""What is made of the answers of a network that names what slices show, and whether one may be shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from napari_covseg.labels import CLASSES, Modality, Task
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import ModelEntry
from napari_covseg.scans.appearance import Appearance, Kind

Floats = npt.NDArray[np.floating]

HIGHEST = 5
"""Slices that a scan's class is the mean of: those in which COVID-19 is likeliest."""
HEAT_SIDE = 128
"""Longest side of a heat map in pixels; the map that it is made of has far fewer."""

_MODALITY: dict[Kind, Modality] = {"chest CT": "CT", "chest X-ray": "X-ray"}
_NAMED: dict[Modality, str] = {"CT": "CT", "X-ray": "X-rays"}
_LEAST_SURE: dict[Modality, float] = {"CT": 0.6, "X-ray": 0.5}
"""Of the kind, by eye. Of 120 slices of CT as pictures one is less sure and of 120 X-rays two; of the X-rays
three more look like something else."""


@dataclass(frozen=True)
class Verdict:
    """Whether a network is asked about a scan, and whether its answer may be shown as a finding.

    Attributes
    ----------
    asked : bool
        Where it is not, there are no probabilities.
    shown : bool
        Whether the probabilities may be shown as a finding.
    caution : str
        One sentence: why not, or how far they can be trusted.
    """

    asked: bool
    shown: bool
    caution: str


@dataclass(frozen=True)
class ScanAnswer:
    """What a network says of a whole scan.

    Attributes
    ----------
    probabilities : tuple of float
        In the order of the outputs. Of classes the mean of the `HIGHEST` slices in which COVID-19 is
        likeliest, of manifestations the highest of all slices; none where no slice was answered.
    shares : tuple of float
        Of manifestations the share of the slices in which each is found; none of classes.
    slices : int
        How many were answered.
    """

    probabilities: tuple[float, ...]
    shares: tuple[float, ...]
    slices: int


def modality_of(appearance: Appearance) -> Modality | None:
    """Return what a scan is of a chest, None if it is no chest, or nobody knows."""
    modality = _MODALITY.get(appearance.kind)
    if modality is None or appearance.confidence.get("kind", 1.0) < _LEAST_SURE[modality]:
        return None
    return modality


def verdict(card: ModelCard, appearance: Appearance) -> Verdict:
    """Return whether a model is asked about a scan, and what becomes of its answer.

    A model says nothing of what is no chest, nor of a modality that it has not learned from. What it says is
    no finding unless its card says so, with the figure that it rests on.
    """
    modality = modality_of(appearance)
    if modality is None:
        return Verdict(False, False, f"{_what_else(appearance)}, so nothing is recognised in it.")
    if modality not in card.modalities:
        learned = " and ".join(_NAMED[one] for one in card.modalities)
        known = f"has learned from {learned} alone" if learned else "does not say what it has learned from"
        return Verdict(
            False,
            False,
            f"{card.id} {known}, so it says nothing of a{'n' * (modality == 'X-ray')} {modality}.",
        )
    if not card.trust:
        return Verdict(
            True,
            False,
            f"How far {card.id} can be trusted was not measured, so what it says is no finding.",
        )
    return Verdict(True, card.trusted, card.trust)


def _what_else(appearance: Appearance) -> str:
    if appearance.kind in _MODALITY:
        sure = 100 * appearance.confidence["kind"]
        return f"It is hardly known to be a {appearance.kind} ({sure:.0f} % sure)"
    return appearance.refusal("").removeprefix(": ").rstrip(".")


def suited(entries: Iterable[ModelEntry], modality: Modality | None) -> ModelEntry | None:
    """Return the first of the models that has learned from a modality, None if there is none."""
    return next((entry for entry in entries if modality in entry.card.modalities), None)


def of_scan(card: ModelCard, probabilities: Floats) -> ScanAnswer:
    """Return what a model says of a scan.

    Parameters
    ----------
    card : ModelCard
    probabilities : ndarray of float, shape (slices, outputs)
        NaN where a slice was not answered, as those without lung are.
    """
    known = probabilities[~np.isnan(probabilities).any(axis=1)].astype(np.float64)
    if not len(known):
        return ScanAnswer((), (), 0)
    if card.task == "recognition":
        first = known[:, card.outputs.index(CLASSES[0]) if CLASSES[0] in card.outputs else 0]
        highest = known[np.argsort(first)[-HIGHEST:]]
        return ScanAnswer(tuple(highest.mean(0).tolist()), (), len(known))
    levels = np.array([card.thresholds[name] for name in card.outputs])
    return ScanAnswer(tuple(known.max(0).tolist()), tuple((known >= levels).mean(0).tolist()), len(known))


def heat_grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the heat map of a slice (y, x), which it covers as a whole."""
    step = ceil(max(shape) / HEAT_SIDE)
    return max(1, round(shape[0] / step)), max(1, round(shape[1] / step))


def in_words(task: Task, outputs: tuple[str, ...], answer: ScanAnswer) -> str:
    """Return what a model says of a scan, for a person: the likeliest class first."""
    if not answer.slices:
        return "no slice has lung"
    if task == "recognition":
        order = np.argsort(answer.probabilities)[::-1]
        return ", ".join(f"{outputs[n]} {100 * answer.probabilities[n]:.0f} %" for n in order)
    return ", ".join(
        f"{name} up to {100 * most:.0f} % (found in {100 * share:.0f} % of the slices)"
        for name, most, share in zip(outputs, answer.probabilities, answer.shares, strict=True)
    )
