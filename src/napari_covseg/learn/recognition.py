"""Teaching a network what pictures show: features of a body that stays as it is, once, and a last layer."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.errors import ModelError
from napari_covseg.labels import MODALITIES
from napari_covseg.learn.labelled_pictures import LabelledPictures, Names
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.train import TrainingProgress, make_optimiser
from napari_covseg.metrics.recognition import auc, brier, confusion, intervals_by_patient, rates
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import DEFAULT, find
from napari_covseg.models.file import load_network, save_model
from napari_covseg.models.forward import as_input
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network
from napari_covseg.networks.classifier import Classifier, load_weights
from napari_covseg.networks.efficientnet import EfficientUNet, EfficientUNetFindings, load_imagenet

Features = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]

MEASURES = ("auc", "accuracy", "sensitivity", "specificity", "precision", "f1", "fpr", "mcc", "brier")
"""What `figures` are made of."""
_TOLD_EVERY = 100
_TEMPERATURES = (0.05, 20.0)
_LEAST_SPREAD = 1e-3  # of a feature that hardly changes


def body_of(recipe: Recipe, weights: Path | None = None) -> Classifier:
    """Return the network of a recipe, its body with the weights that it keeps, in evaluation mode.

    Parameters
    ----------
    recipe : Recipe
    weights : Path, optional
        A state dict, see `networks.classifier.load_weights`; without it those that the recipe names, or
        random ones. Of an `EfficientUNetFindings` a model that labels pixels, by default the default model.

    Raises
    ------
    ModelError
        If the weights are not those of the network, or the package that has them is missing.
    """
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.network, recipe.outputs, recipe.settings)
    assert isinstance(network, Classifier)  # its recipe is for recognition
    if recipe.size < network.smallest or network.size not in (None, recipe.size):
        raise ModelError(
            f"{recipe.name} takes pictures of at least {network.smallest} pixels: choose a larger size."
        )
    if isinstance(network, EfficientUNetFindings):
        _take_body(network, recipe, weights or find(DEFAULT).path)
    elif weights is not None:
        load_weights(network, weights)
    elif recipe.pretrained == "imagenet":
        load_imagenet(network)
    return network.eval()


def _take_body(network: EfficientUNetFindings, recipe: Recipe, path: Path) -> None:
    """Give a network the weights of a model that labels pixels, and check that both see the same."""
    body, card = load_network(path)
    wanted = Preparation.from_card(recipe.preparation)
    if not isinstance(body, EfficientUNet) or body.outputs != network.body.outputs:
        raise ModelError(f"{path} is no model whose findings {recipe.name} can pass on: choose another one.")
    if Preparation.from_card(card.preparation) != wanted:
        raise ModelError(f"{path} prepares slices otherwise than {recipe.name}: choose another one.")
    network.body.load_state_dict(body.state_dict())


def features_of(
    network: Classifier, images: npt.NDArray[np.uint8], device: str = "cpu", batch: int = 16
) -> Features:
    """Return what the body makes of prepared pictures, (n, size, size), as (n, F)."""
    network.to(device).eval()
    with torch.inference_mode():
        parts = [
            network.features(as_input(images[first : first + batch], torch.device(device))).float().cpu()
            for first in range(0, len(images), batch)
        ]
    network.cpu()
    return np.asarray(torch.cat(parts).numpy(), np.float32)


def teach_last_layer(
    recipe: Recipe,
    network: Classifier,
    features: Features,
    classes: Numbers,
    patients: Names,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[TrainingProgress]:
    """Teach the last layer of a network, in place; it begins with zeros, so that no luck decides.

    Parameters
    ----------
    recipe : Recipe
    network : Classifier
        In evaluation mode: without dropout.
    features : ndarray of float32, shape (n, F)
        Of `features_of`.
    classes : ndarray of int64, shape (n,)
        Places among the recipe's outputs.
    patients : ndarray of str, shape (n,)
    stop : callable
        Asked every hundred steps; once it says so, no more are taken.

    Yields
    ------
    TrainingProgress
        Every hundred steps, and after the last.
    """
    if recipe.optimiser == "lbfgs":
        truths = torch.from_numpy(classes)
        shares = torch.from_numpy(_shares(recipe, classes, patients)).float()

        def cost(logits: Tensor) -> Tensor:
            return (shares * F.cross_entropy(logits, truths, reduction="none")).sum()

        yield solve_last_layer(recipe, network, features, cost)
        return
    layer = network.get_submodule(network.last_layer)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimiser = make_optimiser(recipe, layer)
    given, truth = torch.from_numpy(features), torch.from_numpy(classes)
    steps, draw = recipe.length(len(given)), _drawn(recipe, classes, patients)
    started, losses = time.perf_counter(), []
    for step in range(1, steps + 1):
        rows = torch.from_numpy(next(draw))
        optimiser.zero_grad()
        loss = F.cross_entropy(network.classify(given[rows]), truth[rows])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if step % _TOLD_EVERY == 0 or step == steps:
            yield TrainingProgress(step, steps, float(np.mean(losses)), time.perf_counter() - started)
            losses.clear()
            if step < steps and stop():
                return


def solve_last_layer(
    recipe: Recipe, network: Classifier, features: Features, cost: Callable[[Tensor], Tensor]
) -> TrainingProgress:
    """Find the last layer of a network, in place, for which a cost and the penalty of the recipe are least.

    Parameters
    ----------
    recipe : Recipe
        Its `steps` are the most iterations, its `weight_decay` is the penalty.
    network : Classifier
        In evaluation mode, its features going straight into the last layer.
    features : ndarray of float32, shape (n, F)
        Of `features_of`.
    cost : callable
        Of logits, (n, outputs).
    """
    layer = network.get_submodule(network.last_layer)
    assert isinstance(layer, nn.Linear)  # all networks that recognise
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    started, given = time.perf_counter(), torch.from_numpy(features)
    middle, spread = given.mean(0), given.std(0) + _LEAST_SPREAD
    given = (given - middle) / spread
    steps = recipe.length(len(given))
    solver = torch.optim.LBFGS(layer.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> float:
        solver.zero_grad()
        total = cost(network.classify(given)) + recipe.weight_decay / 2 * layer.weight.square().sum()
        total.backward()
        return float(total.detach())

    solver.step(closure)
    with torch.no_grad():  # it is given features as they come, from now on
        layer.weight.div_(spread)
        layer.bias.sub_(layer.weight @ middle)
        left = float(cost(network.classify(torch.from_numpy(features))))
    return TrainingProgress(steps, steps, left, time.perf_counter() - started)


def _shares(recipe: Recipe, classes: Numbers, patients: Names) -> npt.NDArray[np.float64]:
    """Return how often each picture counts; all together add up to 1."""
    if recipe.sampling == "shuffled":
        return np.full(len(classes), 1 / len(classes))
    weight = by_patient(patients, recipe.balance)
    for number in np.unique(classes):
        weight[classes == number] /= weight[classes == number].sum()
    return np.asarray(weight / weight.sum())


def by_patient(patients: Names, balance: float) -> npt.NDArray[np.float64]:
    """Return how often a picture counts, by how many its patient has: 1 for a balance of 1."""
    _, patient, pictures = np.unique(patients, return_inverse=True, return_counts=True)
    return np.asarray(pictures[patient].astype(float) ** (balance - 1))


def _drawn(recipe: Recipe, classes: Numbers, patients: Names) -> Iterator[Numbers]:
    """Yield the rows of each step without an end."""
    random, count = np.random.default_rng(recipe.seed), len(classes)
    if recipe.sampling == "weighted":
        weight = _shares(recipe, classes, patients)
        while True:
            yield random.choice(count, recipe.batch, p=weight)
    batch = min(recipe.batch, count)
    while True:
        order = random.permutation(count)
        yield from (order[first : first + batch] for first in range(0, count - batch + 1, batch))


def probabilities_of(network: Classifier, features: Features) -> Probabilities:
    """Return the probabilities of features, (n, outputs), each row of which adds up to 1."""
    return np.asarray(_logits(network, features).double().softmax(1).numpy(), np.float64)


def _logits(network: Classifier, features: Features) -> Tensor:
    with torch.inference_mode():
        return network.classify(torch.from_numpy(features))


def temperature_of(network: Classifier, features: Features, classes: Numbers) -> float:
    """Return the temperature with which the network is as sure as it is right, between 0.05 and 20.

    That with the least cross-entropy of logits that are divided by it.
    """
    return _temperature(_logits(network, features), classes)


def _temperature(answers: Tensor, classes: Numbers) -> float:
    logits, truth = answers.double(), torch.from_numpy(classes)

    def loss(log: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log), truth))

    found = minimize_scalar(loss, bounds=tuple(math.log(end) for end in _TEMPERATURES), method="bounded")
    return math.exp(float(found.x))


def cool(network: Classifier, temperature: float) -> None:
    """Divide the logits of a network by a temperature, in its last layer: nobody can forget it then."""
    with torch.no_grad():
        for parameter in network.get_submodule(network.last_layer).parameters():
            parameter.div_(temperature)


def without_middle(images: npt.NDArray[np.uint8], frame: float = 0.1) -> npt.NDArray[np.uint8]:
    """Return prepared pictures, (n, size, size), black but for a frame of this share of the side.

    What is recognised from that is not the lungs.
    """
    margin = round(frame * images.shape[-1])
    blank = images.copy()
    blank[:, margin:-margin, margin:-margin] = 0
    return blank


def figures(classes: Numbers, probabilities: Probabilities, patients: Names) -> dict[str, Any]:
    """Measure probabilities: each of `MEASURES` with its 95 % interval by patient, and the confusion matrix.

    The first class is the one that is looked for; the most probable one is what is found.

    Returns
    -------
    dict
        ``pictures``, ``patients``, ``confusion`` (a row for each true class), and for each measure
        ``[value, low, high]``, None where it has no value.
    """

    def measured(rows: npt.NDArray[np.intp]) -> list[float]:
        truth, sure = classes[rows], probabilities[rows]
        values = rates(confusion(truth, sure.argmax(1), sure.shape[1]))
        values |= {"auc": auc(truth == 0, sure[:, 0]), "brier": brier(truth, sure)}
        return [values[name] for name in MEASURES]

    values, ends = measured(np.arange(len(classes))), intervals_by_patient(patients, measured)
    found = confusion(classes, probabilities.argmax(1), probabilities.shape[1])
    table: dict[str, Any] = {"pictures": len(classes), "patients": len(set(patients.tolist()))}
    table["confusion"] = found.tolist()
    for name, value, (low, high) in zip(MEASURES, values, ends, strict=True):
        table[name] = stored(value, low, high)
    return table


def stored(value: float, low: float, high: float) -> list[float | None]:
    """Return a figure and its interval as a card keeps them: four digits, None for what is no number."""
    return [round(one, 4) if math.isfinite(one) else None for one in (value, low, high)]


def train_recognition(
    data: LabelledPictures,
    split: dict[str, list[str]],
    out: Path,
    recipe: Recipe,
    *,
    name: str = "",
    weights: Path | None = None,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[TrainingProgress | ModelCard]:
    """Teach a network to recognise pictures and write a model file.

    Parameters
    ----------
    data : LabelledPictures
        Of classes that the recipe has outputs for, see `LabelledPictures.of_classes`.
    split : dict
        From `train_model.split_patients`; the validation patients choose the temperature, without any the
        folds of those who teach.
    out : Path
        The model file, ``.safetensors``.
    recipe : Recipe
        For recognition.
    name : str
        The model's id; the file's name by default.
    weights : Path, optional
        Of the body, see `body_of`.
    device : str
    stop : callable
        Asked every hundred steps; once it says so, no model file is written.

    Yields
    ------
    TrainingProgress
        While training.
    ModelCard
        Of the model written; last.

    Raises
    ------
    ModelError
        If the weights cannot be used, the file cannot be written, or the patients to train on have none of a
        class.
    """
    parts = {part: np.flatnonzero(np.isin(data.patients, names)) for part, names in split.items()}
    parts = {part: rows for part, rows in parts.items() if len(rows)}
    classes, learned = data.numbers(recipe.outputs), parts["training"]
    if missing := [o for n, o in enumerate(recipe.outputs) if n not in classes[learned]]:
        raise ModelError(
            f"The patients to train on have no picture of {', '.join(missing)}: keep out others, or take a "
            "recipe without it."
        )
    started = time.perf_counter()
    network = body_of(recipe, weights)
    features = features_of(network, data.prepared(Preparation.from_card(recipe.preparation)), device)
    temperature, chosen = 1.0, " The temperature was chosen on the validation part."
    if "validation" not in parts:  # before the last layer learns from everybody
        temperature = _temperature_by_fold(recipe, network, features, classes, data, learned)
        chosen = " The temperature was chosen on those who taught, fold by fold." if data.folds else ""
    progress = None
    for progress in teach_last_layer(
        recipe, network, features[learned], classes[learned], data.patients[learned], stop
    ):
        yield progress
    if progress is None or progress.step < progress.steps:
        return
    if (rows := parts.get("validation")) is not None:
        temperature = temperature_of(network, features[rows], classes[rows])
    cool(network, temperature)
    sure = probabilities_of(network, features)
    scores: dict[str, Any] = {
        part: figures(classes[rows], sure[rows], data.patients[rows])
        for part, rows in parts.items()
        if part != "training"
    }
    if scores:
        scores["protocol"] = (
            "Single pictures, the most probable class; [value, low, high] of a 95 % bootstrap interval over "
            f"patients.{chosen}"
        )
    facts: dict[str, Any] = {
        "steps": progress.steps,
        "seconds": round(time.perf_counter() - started),
        "temperature": round(temperature, 4),
        "body": weights.name if weights is not None else recipe.pretrained or "random",
        "torch": torch.__version__,
    }
    taught = data.rows(learned)
    card = ModelCard(
        id=name or out.stem,
        title=f"{recipe.title or recipe.network} for {_either(recipe.outputs)}"
        + (f" ({recipe.paper})" if recipe.paper else ""),
        summary=_summary(recipe, taught, facts["body"]),
        network={"name": recipe.network, "settings": recipe.settings},
        preparation=Preparation.from_card(recipe.preparation).to_card(),
        outputs=recipe.outputs,
        thresholds=dict.fromkeys(recipe.outputs, 0.5),
        trained_on=f"{len(taught)} pictures of {len(split['training'])} patients or groups",
        split=split,
        recipe={**asdict(recipe), "trained": facts},
        scores=scores,
        licence=data.licence,
        sources=taught.licences,
        created=datetime.date.today().isoformat(),
        task="recognition",
        modalities=tuple(kind for kind in MODALITIES if kind in taught.modalities),
    )
    save_model(out, network, card)
    yield card


def _temperature_by_fold(
    recipe: Recipe,
    network: Classifier,
    features: Features,
    classes: Numbers,
    data: LabelledPictures,
    learned: Numbers,
) -> float:
    """Return the temperature of those who teach, each answered by a last layer that others have taught.

    1 where the data has no folds, or in one nobody is left to learn a class from.
    """
    answers = torch.full((len(features), len(recipe.outputs)), math.nan)
    for names in data.folds.values():
        apart = np.isin(data.patients[learned], names)
        taught, asked = learned[~apart], learned[apart]
        if len(set(classes[taught].tolist())) < len(recipe.outputs) or not len(asked):
            continue
        for _ in teach_last_layer(recipe, network, features[taught], classes[taught], data.patients[taught]):
            pass
        answers[torch.from_numpy(asked)] = _logits(network, features[asked])
    known = np.flatnonzero(answers[:, 0].isfinite().numpy())
    return _temperature(answers[torch.from_numpy(known)], classes[known]) if len(known) else 1.0


def _summary(recipe: Recipe, taught: LabelledPictures, body: str) -> str:
    kinds = " and ".join(f"{kind} pictures" for kind in sorted(set(taught.modalities.tolist())))
    random = " Its body has random weights: it knows little." if body == "random" else ""
    return (
        f"Says of single {kinds} whether they show {_either(recipe.outputs)}.{random} It may tell where a "
        "picture comes from and not what it shows: its probabilities are no finding."
    )


def _either(outputs: Sequence[str]) -> str:
    return f"{', '.join(outputs[:-1])} or {outputs[-1]}"
