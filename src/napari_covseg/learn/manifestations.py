"""Teaching a network which findings a slice shows: none of them, or any."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_covseg.errors import ModelError
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.recognition import (
    Features,
    body_of,
    by_patient,
    features_of,
    solve_last_layer,
    stored,
)
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.learn.train import TrainingProgress, make_optimiser
from napari_covseg.metrics.recognition import auc, intervals_by_patient
from napari_covseg.models.card import ModelCard, read_card
from napari_covseg.models.catalogue import DEFAULT
from napari_covseg.models.file import save_model
from napari_covseg.models.forward import as_input, stacked
from napari_covseg.models.preparation import Preparation, as_shown
from napari_covseg.networks.blocks import by_name
from napari_covseg.networks.classifier import Classifier
from napari_covseg.scans.appearance import look

SIDE = 320
"""Pixels per side of the slices that are read: turning them upright and CLAHE come after."""
PIXELS = 10
"""Of a finding on a prepared slice, from which it counts as shown."""
Known = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float64]


def known_of(slices: LabelledSlices) -> Known:
    """Return of each slice and channel whether it is shown: 1, 0 or `UNKNOWN`, shape (n, channels).

    A finding of fewer than `PIXELS` pixels is none; a slice of which a part is unknown shows what it shows,
    but nobody knows what it does not.
    """
    shown = (slices.masks == 1).sum((2, 3)) >= PIXELS
    unclear = (slices.masks == UNKNOWN).any((2, 3))
    return np.where(shown, 1, np.where(unclear, UNKNOWN, 0)).astype(np.uint8)


def as_seen(slices: LabelledSlices, preparation: Preparation) -> LabelledSlices:
    """Return slices that were read as they are, of at least `SIDE`, as scans are shown to a network.

    Pictures are turned upright and get a margin where they have none, as when a network is asked.
    """
    assert slices.kinds is not None
    images = np.zeros((len(slices), preparation.size, preparation.size), np.uint8)
    whose = np.char.add(np.char.add(slices.patients, "/"), slices.kinds)
    for one in dict.fromkeys(whose.tolist()):
        rows = np.flatnonzero(whose == one)
        hounsfield = slices.kinds[rows[0]] == "HU"
        appearance = look(slices.images[rows], "HU" if hounsfield else "grey")
        for row in rows:
            images[row] = as_shown(slices.images[row], appearance, preparation)
    return replace(slices, images=images, kinds=None, masks=slices.resized(preparation.size).masks)


def blind_features(
    recipe: Recipe, data: LabelledSlices, folder: Path, device: str = "cpu"
) -> tuple[Features, npt.NDArray[np.bool_]]:
    """Return features of each slice by a body that has not learned from its patient.

    Parameters
    ----------
    recipe : Recipe
    data : LabelledSlices
    folder : Path
        Of models, of which each patient gets the first that fits and is prepared for as the recipe says;
        without one the recipe's own body.
    device : str

    Returns
    -------
    features : ndarray of float32, shape (n, F)
    blind : ndarray of bool, shape (n,)
        Whether there was such a model.
    """
    wanted = Preparation.from_card(recipe.preparation)
    cards = {
        path: card.split
        for path in sorted(folder.glob("*.safetensors"))
        if (card := read_card(path)).network["name"] == "efficientunet"
        and Preparation.from_card(card.preparation) == wanted
    }
    bodies: dict[Path | None, list[str]] = {}
    for patient in dict.fromkeys(data.patients.tolist()):
        fit = (path for path, split in cards.items() if not _has_seen(split, patient))
        bodies.setdefault(next(fit, None), []).append(patient)
    features, blind = np.zeros((0, 0), np.float32), np.zeros(len(data), np.bool_)
    for path, patients in bodies.items():
        rows = np.isin(data.patients, patients)
        found = features_of(body_of(recipe, path), data.images[rows], device)
        if not len(features):
            features = np.zeros((len(data), found.shape[1]), np.float32)
        features[rows], blind[rows] = found, path is not None
    return features, blind


def _has_seen(split: dict[str, list[str]], patient: str) -> bool:
    # who is on none of its lists may have another name there: only who tested was certainly kept out
    return patient not in split.get("test", ())


def manifestations_of(network: Classifier, features: Features, channels: Sequence[str]) -> Probabilities:
    """Return the probabilities of features, (n, channels); of the union too where it is a channel."""
    with torch.inference_mode():
        logits = _logits(network.classify(torch.from_numpy(features)), network.outputs, channels)
    return np.asarray(logits.double().sigmoid().numpy(), np.float64)


def _logits(logits: Tensor, outputs: Sequence[str], channels: Sequence[str]) -> Tensor:
    return stacked(by_name(logits, tuple(outputs)), channels)


def teach_manifestations(
    recipe: Recipe,
    network: Classifier,
    given: Features | npt.NDArray[np.uint8],
    known: Known,
    channels: Sequence[str],
    patients: npt.NDArray[np.str_],
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[TrainingProgress]:
    """Teach a network, in place: its last layer by ``"lbfgs"``, all of it by other optimisers.

    Of each channel slices that show it and slices that do not count alike, and one of which that is unknown
    not at all.

    Parameters
    ----------
    recipe : Recipe
        For manifestations.
    network : Classifier
    given : ndarray of float32, shape (n, F), or of uint8, shape (n, size, size)
        Features for a last layer, prepared slices for a whole network.
    known : ndarray of uint8, shape (n, channels)
        Of `known_of`.
    channels : sequence of str
        The outputs, and perhaps their union.
    patients : ndarray of str, shape (n,)
    stop : callable
        Asked every step; once it says so, no more are taken.
    """
    shares = torch.from_numpy(_shares(known, patients, recipe)).float()
    truth = torch.from_numpy((known == 1).astype(np.float32))

    def cost(logits: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        errors = F.binary_cross_entropy_with_logits(
            _logits(logits, network.outputs, channels), truth[rows], reduction="none"
        )
        return (shares[rows] * errors).sum()

    if recipe.optimiser == "lbfgs":
        yield solve_last_layer(recipe, network, np.asarray(given, np.float32), cost)
        return
    network.train()
    optimiser, draw = make_optimiser(recipe, network), np.random.default_rng(recipe.seed)
    count = len(given)
    batch, steps = min(recipe.batch, count), recipe.length(count)
    started, order = time.perf_counter(), np.zeros(0, np.intp)
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = draw.permutation(count)
        rows, order = order[:batch], order[batch:]
        optimiser.zero_grad()
        features = network.features(as_input(np.asarray(given[rows], np.uint8)))
        loss = cost(network.classify(features), torch.from_numpy(rows)) * (count / batch)
        loss.backward()
        optimiser.step()
        if step % 10 == 0 or step == steps:
            yield TrainingProgress(step, steps, loss.item(), time.perf_counter() - started)
        if step < steps and stop():
            break
    network.eval()


def _shares(known: Known, patients: npt.NDArray[np.str_], recipe: Recipe) -> npt.NDArray[np.float64]:
    """Return how often each slice counts for each channel; those of a channel add up to 1."""
    weight = by_patient(patients, recipe.balance if recipe.sampling == "weighted" else 1.0)
    shares = np.zeros(known.shape)
    for channel in range(known.shape[1]):
        for value in (0, 1):
            rows = known[:, channel] == value
            if rows.any():
                shares[rows, channel] = weight[rows] / weight[rows].sum() / 2
    return shares


def manifestation_figures(
    known: Known, sure: Probabilities, channels: Sequence[str], patients: npt.NDArray[np.str_], level: float
) -> dict[str, Any]:
    """Measure each channel on the slices of which it is known.

    Returns
    -------
    dict
        Of each channel ``slices``, ``shown``, ``patients``, and ``auc``, ``sensitivity`` and ``specificity``
        at a threshold, each ``[value, low, high]`` of a 95 % interval by patient, None where there is none.
    """
    table: dict[str, Any] = {}
    for number, name in enumerate(channels):
        rows = known[:, number] != UNKNOWN
        truth, score, whose = known[rows, number] == 1, sure[rows, number], patients[rows]
        if not len(truth):
            continue

        def measured(
            drawn: npt.NDArray[np.intp],
            truth: npt.NDArray[np.bool_] = truth,
            score: Probabilities = score,
        ) -> list[float]:
            so, found = truth[drawn], score[drawn] >= level
            right = [float(part.mean()) if len(part) else math.nan for part in (found[so], ~found[~so])]
            return [auc(so, score[drawn]), *right]

        values, ends = measured(np.arange(len(truth))), intervals_by_patient(whose, measured)
        table[name] = {
            "slices": len(truth), "shown": int(truth.sum()), "patients": len(set(whose.tolist()))
        }  # fmt: skip
        for key, value, (low, high) in zip(("auc", "sensitivity", "specificity"), values, ends, strict=True):
            table[name][key] = stored(value, low, high)
    return table


def train_manifestations(
    data: LabelledSlices,
    split: dict[str, list[str]],
    out: Path,
    recipe: Recipe,
    *,
    name: str = "",
    weights: Path | None = None,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[TrainingProgress | ModelCard]:
    """Teach a network to name the findings of slices and write a model file.

    Parameters
    ----------
    data : LabelledSlices
        Prepared as the recipe says, with its outputs, see `as_seen`.
    split : dict
        From `train_model.split_patients`; validation patients are measured like those of the test.
    out : Path
        The model file, ``.safetensors``.
    recipe : Recipe
        For manifestations.
    name, weights, device, stop
        As for `learn.recognition.train_recognition`; a whole network learns on the CPU. If `weights` is a
        folder, a last layer learns from `blind_features`, and is put on the recipe's own body.

    Yields
    ------
    TrainingProgress
        While training.
    ModelCard
        Of the model written; last.

    Raises
    ------
    ModelError
        If the weights cannot be used, the file cannot be written, or nobody is left to learn an output from.
    """
    known, channels = known_of(data), data.outputs
    rows = {part: np.isin(data.patients, names) for part, names in split.items()}
    learned = rows["training"]
    if missing := missing_of(recipe, known[learned], channels):
        raise ModelError(
            f"The patients to train on have no slices with and without {', '.join(missing)}: keep out others."
        )
    folder = weights if weights is not None and weights.is_dir() else None
    started, progress = time.perf_counter(), None
    network = body_of(recipe, None if folder is not None else weights)
    frozen = recipe.optimiser == "lbfgs"
    if folder is not None:
        given, _ = blind_features(recipe, data, folder, device)
    else:
        given = features_of(network, data.images, device) if frozen else data.images
    taught = given[learned], known[learned], channels, data.patients[learned]
    for progress in teach_manifestations(recipe, network, *taught, stop):
        yield progress
    if progress is None or progress.step < progress.steps:
        return
    features = given if frozen else features_of(network, data.images, device)
    sure = manifestations_of(network, features, channels)
    scores: dict[str, Any] = {
        part: manifestation_figures(known[some], sure[some], channels, data.patients[some], 0.5)
        for part, some in rows.items()
        if part != "training" and some.any()
    }
    if scores:
        scores["protocol"] = "Single slices; [value, low, high] of a 95 % bootstrap interval over patients."
    named = set() if data.sources is None else set(data.sources[learned].tolist())
    findings = ", ".join(recipe.outputs)
    card = ModelCard(
        id=name or out.stem,
        title=f"{recipe.title or recipe.network} for {findings}"
        + (f" ({recipe.paper})" if recipe.paper else ""),
        summary=f"Says of each slice of a chest CT whether it shows {findings}: a pointer where to look, no "
        "finding.",
        network={"name": recipe.network, "settings": recipe.settings},
        preparation=Preparation.from_card(recipe.preparation).to_card(),
        outputs=recipe.outputs,
        thresholds=dict.fromkeys(recipe.outputs, 0.5),
        trained_on=f"{int(learned.sum())} slices of {len(split['training'])} patients or sources",
        split=split,
        recipe={
            **asdict(recipe),
            "trained": {
                "steps": progress.steps,
                "seconds": round(time.perf_counter() - started),
                "body": _body(recipe, weights),
                "torch": torch.__version__,
            },
        },
        scores=scores,
        licence=data.licence,
        sources={one: terms for one, terms in data.licences.items() if one in named},
        created=datetime.date.today().isoformat(),
        task="manifestations",
        modalities=("CT",),
    )
    save_model(out, network, card)
    yield card


def _body(recipe: Recipe, weights: Path | None) -> str:
    if weights is None or weights.is_dir():  # others stood in for it while the last layer learned
        return DEFAULT if recipe.network == "efficientunetfindings" else recipe.pretrained or "random"
    return weights.name


def missing_of(recipe: Recipe, known: Known, channels: Sequence[str]) -> list[str]:
    """Return the outputs of which slices do not show both: that it is there, and that it is not."""
    shown = {name: set(known[:, number].tolist()) for number, name in enumerate(channels)}
    return [name for name in recipe.outputs if not {0, 1} <= shown[name]]
