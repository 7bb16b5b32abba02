"""How well a network names the findings of slices of patients whom it has not learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.assess.recognition import TRUSTED, Assessed, figure_text
from napari_covseg.assess.tables import section
from napari_covseg.errors import JobError
from napari_covseg.learn.manifestations import (
    blind_features,
    known_of,
    manifestation_figures,
    manifestations_of,
    missing_of,
    teach_manifestations,
)
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.recognition import body_of, features_of
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.metrics.recognition import reliability

LEVEL = 0.5
LEAST = 10
"""Slices with and without a finding, from which its AUC says how far a model can be trusted."""
BLOCK = 10
"""Slices of a single patient that are drawn together for an interval: neighbours look alike."""
Rows = npt.NDArray[np.bool_]
BY_FOLD, UNTAUGHT = "by fold", "never taught on"


def assess_manifestations(
    data: LabelledSlices,
    recipe: Recipe,
    untaught: LabelledSlices | None = None,
    weights: Path | None = None,
    device: str = "cpu",
) -> Iterator[Assessed]:
    """Test a recipe on each source by fold, and on each patient of data that never teaches.

    Parameters
    ----------
    data : LabelledSlices
        Prepared as the recipe says, with its outputs and with folds.
    recipe : Recipe
        For manifestations.
    untaught : LabelledSlices, optional
        Of the same outputs: tested by a network that all of `data` has taught.
    weights : Path, optional
        Of the body, see `learn.recognition.body_of`; or a folder of models: each patient is seen by one that
        has not learned from the patient, see `learn.manifestations.blind_features`. For whom there is none
        teaches, and is not tested.
    device : str

    Yields
    ------
    Assessed
        The figures are those of `learn.manifestations.manifestation_figures`, by channel; of `reliability`
        those of the last channel.

    Raises
    ------
    JobError
        If the data has no folds, or in one nobody is left to learn an output from.
    ModelError
        If the weights cannot be used.
    """
    if not data.folds:
        raise JobError("The data has no folds: give its description a table [folds].")
    known, channels, frozen = known_of(data), data.outputs, recipe.optimiser == "lbfgs"
    folder = weights if weights is not None and weights.is_dir() else None
    own = None if folder is not None else weights
    network, blind = body_of(recipe, own), np.ones(len(data), np.bool_)
    if folder is not None:
        given, blind = blind_features(recipe, data, folder, device)
    else:
        given = features_of(network, data.images, device) if frozen else data.images

    def teach(rows: Rows) -> None:
        if missing := missing_of(recipe, known[rows], channels):
            raise JobError(f"In a fold nobody is left to learn {', '.join(missing)} from: change the folds.")
        if not frozen:  # all of it begins again
            network.load_state_dict(body_of(recipe, own).state_dict())
        learned = given[rows], known[rows], channels, data.patients[rows]
        for _ in teach_manifestations(recipe, network, *learned):
            pass

    def asked(images: npt.NDArray[np.uint8]) -> Any:
        return manifestations_of(network, features_of(network, images, device), channels)

    sure = np.full(known.shape, np.nan)
    for patients in data.folds.values():
        test = np.isin(data.patients, patients)
        if not (test & blind).any():
            continue
        teach(~test)
        tested = test & blind
        sure[tested] = (
            manifestations_of(network, given[tested], channels) if frozen else asked(data.images[tested])
        )
    named = data.patients if data.sources is None else data.sources
    for source in dict.fromkeys(named.tolist()):
        rows = (named == source) & np.isfinite(sure[:, 0])
        if rows.any():
            parts = known[rows], sure[rows], channels, data.patients[rows]
            yield _told(recipe, f"{BY_FOLD}, {source}", len(data.folds), *parts)
    if untaught is None:
        return
    teach(np.ones(len(data), np.bool_))
    truth, answers = known_of(untaught), asked(untaught.images)
    for patient in dict.fromkeys(untaught.patients.tolist()):
        rows = untaught.patients == patient
        whose = np.array([f"{patient} {number // BLOCK}" for number in range(int(rows.sum()))])
        yield _told(recipe, f"{UNTAUGHT}, {patient}", 1, truth[rows], answers[rows], channels, whose)


def _told(
    recipe: Recipe, protocol: str, trainings: int, known: Any, sure: Any, channels: Sequence[str], whose: Any
) -> Assessed:
    there = known[:, -1] != UNKNOWN
    curve = reliability(known[there, -1] == 1, sure[there, -1]) if there.any() else []
    figures = manifestation_figures(known, sure, channels, whose, LEVEL)
    return Assessed(recipe.name, protocol, trainings, figures, curve)


def manifestation_tables(found: Sequence[Assessed]) -> str:
    """Return what was assessed as Markdown."""
    rows = [
        [
            one.recipe,
            one.protocol,
            name,
            f"{told['shown']} of {told['slices']}",
            *(figure_text(told[key]) for key in ("auc", "sensitivity", "specificity")),
        ]
        for one in found
        for name, told in one.figures.items()
    ]
    heads = ["Recipe", "Tested", "Finding", "Shown on slices", "AUC", "Sensitivity", "Specificity"]
    note = (
        "Each finding on the slices of which it is known whether they show it, by a network that has not "
        "learned from the patient; sensitivity and specificity at a probability of 0.5. Intervals: 95 %, "
        f"bootstrap over patients; of a single patient over blocks of {BLOCK} slices, which says nothing of "
        "other patients."
    )
    return section("Manifestations", note, heads, rows) + "\n"


def trust_in_manifestations(assessed: Sequence[dict[str, Any]]) -> tuple[str, bool]:
    """Return what a card says about how far a model can be trusted, and whether it can.

    Parameters
    ----------
    assessed : sequence of dict
        What was stored of `assess_manifestations`.

    Raises
    ------
    JobError
        If nothing has an AUC that says anything, of `LEAST` slices with and without the finding.
    """
    areas = [
        (name, one["protocol"].split(", ", 1)[1], told["auc"])
        for one in assessed
        for name, told in one["figures"].items()
        if told["auc"][0] is not None and min(told["shown"], told["slices"] - told["shown"]) >= LEAST
    ]
    if not areas:
        raise JobError(
            "Nothing in this assessment has an AUC: assess it on slices with and without findings."
        )
    words = "; ".join(f"{name} {figure_text(area)} on {where}" for name, where, area in areas)
    trusted = min(area[0] for _, _, area in areas) >= TRUSTED
    told = f"AUC of slices of patients that it has not seen: {words}"
    return told + ("." if trusted else ": a pointer where to look, no finding."), trusted
