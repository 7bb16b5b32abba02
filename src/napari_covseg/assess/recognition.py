"""What is left of a recognition when the network cannot tell where a picture comes from."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.assess.tables import number_text, section, without_nan
from napari_covseg.errors import JobError
from napari_covseg.files import write_text
from napari_covseg.learn.labelled_pictures import LabelledPictures, Names, divided
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.recognition import (
    MEASURES,
    Features,
    body_of,
    cool,
    features_of,
    figures,
    probabilities_of,
    teach_last_layer,
    temperature_of,
    without_middle,
)
from napari_covseg.metrics.recognition import reliability
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.classifier import Classifier

FOLDS = 5
LEAST = 10
"""Patients of each class that a website needs to be looked at by itself."""
TRUSTED = 0.75
"""AUC on websites that were left out, from which probabilities may be shown as findings."""
BY_PATIENT, BORDERS, LEFT_OUT = "by patient", "borders only, by patient", "one website left out"
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Assessed:
    """The figures of one way to divide the pictures.

    Attributes
    ----------
    recipe, protocol : str
    folds : int
        Networks that were taught for it.
    figures : dict
        Of `learn.recognition.figures`, of all pictures that were tested, each once.
    reliability : list of (float, float, int)
        Of the first class, see `metrics.recognition.reliability`.
    """

    recipe: str
    protocol: str
    folds: int
    figures: dict[str, Any]
    reliability: list[tuple[float, float, int]]


def assess_recognition(
    data: LabelledPictures, recipe: Recipe, weights: Path | None = None, device: str = "cpu"
) -> Iterator[Assessed]:
    """Test a recipe by patient, and in ways that show how much of it is the source of a picture.

    By patient; by picture, as in many papers, where a patient is on both sides; by patient with all but the
    borders blacked out; with one website after the other left out of the training; and within each website
    that has enough patients of every class.

    Parameters
    ----------
    data : LabelledPictures
        With folds, see `LabelledPictures.of_classes` for the classes.
    recipe : Recipe
        For recognition.
    weights : Path, optional
        Of the body, see `learn.recognition.body_of`.
    device : str

    Raises
    ------
    JobError
        If the data has no folds, or so few patients of a class that a fold would teach nothing of it.
    ModelError
        If the weights cannot be used.
    """
    if len(data.folds) < 2:
        raise JobError('The data has no folds: give its description "folds = 5", or a table of them.')
    patients, classes = data.patients, data.numbers(recipe.outputs)
    for taught, _, _ in (folds := _by(data.folds, patients)):
        if missing := [o for number, o in enumerate(recipe.outputs) if number not in classes[taught]]:
            raise JobError(
                f"In a fold nobody is left to learn {', '.join(missing)} from: add patients, or take a "
                "recipe without it."
            )
    images = data.prepared(Preparation.from_card(recipe.preparation))
    network = body_of(recipe, weights)
    features = features_of(network, images, device)

    def tested(protocol: str, given: Features, tests: list[tuple[Mask, Mask, Mask]]) -> Iterator[Assessed]:
        needed = range(len(recipe.outputs))
        tests = [one for one in tests if all(number in classes[one[0]] for number in needed)]
        if tests:
            yield _tested(protocol, recipe, network, given, (classes, patients), tests)

    yield from tested(BY_PATIENT, features, folds)
    alone = np.array([f"picture {number}" for number in range(len(data))])
    yield from tested("by picture", features, _by(divided(alone, data.classes, len(data.folds)), alone))
    borders = features_of(network, without_middle(images), device)
    yield from tested(BORDERS, borders, folds)
    yield from tested(LEFT_OUT, features, _by_site(data, patients))
    for site in sorted(set(data.sites.tolist())):
        here = data.sites == site
        if _fewest(patients[here], classes[here], len(recipe.outputs)) >= LEAST:
            divisions = _by(divided(patients[here], data.classes[here], FOLDS), patients)
            within = [tuple(part & here for part in one) for one in divisions]
            yield from tested(f"within {site}", features, within)


def _by(folds: dict[str, list[str]], patients: Names) -> list[tuple[Mask, Mask, Mask]]:
    """Return who is taught, who calibrates (the next of more than two folds), who is tested."""
    names = list(folds)
    found = []
    for name, following in zip(names, [*names[1:], *names[:1]], strict=True):
        test = np.isin(patients, folds[name])
        calibrate = np.isin(patients, folds[following]) if len(names) > 2 else np.zeros_like(test)
        found.append((~test & ~calibrate, calibrate, test))
    return found


def _by_site(data: LabelledPictures, patients: Names) -> list[tuple[Mask, Mask, Mask]]:
    """Return the same for one website after the other; who is on it is taught with no picture at all."""
    found = []
    for site in sorted(set(data.sites.tolist())):
        test = data.sites == site
        others = ~np.isin(patients, patients[test])
        if len(set(patients[others].tolist())) >= FOLDS:
            folds = divided(patients[others], data.classes[others], FOLDS)
            calibrate = np.isin(patients, folds["1"])
            found.append((others & ~calibrate, calibrate, test))
    return found


def _fewest(patients: Names, classes: npt.NDArray[np.int64], count: int) -> int:
    return min(len(set(patients[classes == number].tolist())) for number in range(count))


def _tested(
    protocol: str,
    recipe: Recipe,
    network: Classifier,
    features: Features,
    known: tuple[npt.NDArray[np.int64], Names],
    tests: Sequence[tuple[Mask, Mask, Mask]],
) -> Assessed:
    classes, patients = known
    sure = np.full((len(classes), len(recipe.outputs)), np.nan)
    for learn, calibrate, test in tests:
        for _ in teach_last_layer(recipe, network, features[learn], classes[learn], patients[learn]):
            pass
        if calibrate.any():
            cool(network, temperature_of(network, features[calibrate], classes[calibrate]))
        sure[test] = probabilities_of(network, features[test])
    rows = np.isfinite(sure[:, 0])
    told = figures(classes[rows], sure[rows], patients[rows])
    curve = reliability(classes[rows] == 0, sure[rows, 0])
    return Assessed(recipe.name, protocol, len(tests), told, curve)


def recognition_tables(found: Sequence[Assessed], outputs: dict[str, Sequence[str]]) -> str:
    """Return what was assessed as Markdown.

    Parameters
    ----------
    found : sequence of Assessed
    outputs : dict of str to sequence of str
        Of each recipe.
    """
    rows = [
        [
            one.recipe,
            one.protocol,
            str(one.folds),
            f"{one.figures['pictures']} of {one.figures['patients']}",
            f"{max(map(sum, one.figures['confusion'])) / one.figures['pictures']:.3f}",
            *(figure_text(one.figures[name]) for name in MEASURES),
        ]
        for one in found
    ]
    heads = ["Recipe", "Divided", "Trainings", "Pictures of patients", "Largest class"]
    heads += ["AUC", "Accuracy", "Sensitivity", "Specificity", "Precision", "F1", "FPR", "MCC", "Brier"]
    note = (
        "Every picture is tested once, by a network that has not learned from its patient (by picture: that "
        "has not learned from the picture). Intervals: 95 %, bootstrap over patients. The first class is the "
        "one that is looked for; *Largest class* is the accuracy of always naming it. Where the borders "
        "alone score as the whole picture does, or a website that was left out scores less, the source "
        "was read."
    )
    parts = [section("Recognition", note, heads, rows)]
    for one in found:
        names = list(outputs[one.recipe])
        matrix = [[name, *map(str, row)] for name, row in zip(names, one.figures["confusion"], strict=True)]
        title = f"{one.recipe}, {one.protocol}: what is (rows) and what was found"
        parts.append(section(title, "", ["", *names], matrix))
    return "\n\n".join(part for part in parts if part) + "\n"


def trust_in(assessed: Sequence[dict[str, Any]]) -> tuple[str, bool]:
    """Return what a card says about how far a model can be trusted, and whether it can.

    It can where websites that it has not learned from are told apart as well: `TRUSTED` at least, the lower
    end of the interval.

    Parameters
    ----------
    assessed : sequence of dict
        What `store_recognition` has written of a recipe.

    Raises
    ------
    JobError
        If no website was left out, so that nobody knows.
    """
    area = {one["protocol"]: one["figures"]["auc"] for one in assessed}
    if not {BY_PATIENT, BORDERS, LEFT_OUT} <= area.keys():
        raise JobError("No website was left out in this assessment: assess it on data of several websites.")
    trusted = (area[LEFT_OUT][1] or 0) >= TRUSTED
    told = (
        f"AUC {figure_text(area[BY_PATIENT])} for patients that it has not seen, "
        f"{figure_text(area[LEFT_OUT])} for websites that it has not seen, "
        f"{figure_text(area[BORDERS])} from the borders of the pictures alone"
    )
    return told + (
        "." if trusted else ": it tells where a picture comes from, so this is no finding."
    ), trusted


def store_recognition(folder: Path, data: str, recipe: Recipe, found: Sequence[Assessed]) -> Path:
    """Write what was assessed of a recipe into a folder, as ``DATA-RECIPE.json``, and return the file.

    Raises
    ------
    JobError
        If it cannot be written.
    """
    path = folder / f"{data}-{recipe.name}.json"
    told = {"data": data, "outputs": recipe.outputs, "recipe": recipe.decisive()}
    told["assessed"] = [without_nan(dataclasses.asdict(one)) for one in found]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise JobError(f"{path} cannot be written ({error.strerror}): name another folder.") from error
    return path


def figure_text(figure: Sequence[float | None]) -> str:
    """Return a figure with its interval, as tables have it."""
    value, low, high = (math.nan if one is None else one for one in figure)
    if math.isnan(value):
        return number_text(value)
    return f"{number_text(value)} ({number_text(low)}–{number_text(high)})"
