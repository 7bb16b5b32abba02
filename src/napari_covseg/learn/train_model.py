"""From labelled data to a model file: choose the patients, crop, fit into the time, train, write the card."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_covseg.errors import ModelError
from napari_covseg.labels import UNION, UNITED
from napari_covseg.learn.augment import augmentation
from napari_covseg.learn.labelled_pictures import LabelledPictures
from napari_covseg.learn.recipe import Recipe, read_recipe
from napari_covseg.learn.sampling import Sampler
from napari_covseg.learn.score import choose_thresholds, least, probabilities, score, validate
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices, prepare, shrink
from napari_covseg.learn.train import (
    TrainedNetwork,
    TrainingProgress,
    TrainingRun,
    matching_share,
    steps_of,
    train,
)
from napari_covseg.learn.training_set import read_training_set
from napari_covseg.masks.parts import numbered
from napari_covseg.models.card import ModelCard, read_card
from napari_covseg.models.file import Model, save_model
from napari_covseg.models.preparation import Placement, Preparation

_TIMED = 3
_RESERVE = 0.95  # a busy machine, checkpoints
_SPECK = 0.002


def split_patients(
    data: LabelledSlices | LabelledPictures,
    fold: str | None = None,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
) -> dict[str, list[str]]:
    """Divide the patients, never their slices or pictures, into training, validation and test.

    Parameters
    ----------
    data : LabelledSlices or LabelledPictures
    fold : str, optional
        One of the folds that the data's description names: its patients are the test part,
        and its validation patients, if the description names any, choose the checkpoint.
    validation, test : sequence of str
        Further patients to keep out of training.

    Returns
    -------
    dict
        ``training``, ``validation``, ``test``: sorted names, disjoint.

    Raises
    ------
    ModelError
        If a fold or a patient is not in the data, or nobody is left to train on.
    """
    if fold is not None and fold not in data.folds:
        known = ", ".join(data.folds) or "none"
        raise ModelError(f"The data names no fold {fold!r}: it has {known}.")
    everyone = set(data.patients.tolist())
    tested = {*test, *(data.folds[fold] if fold else ())}
    validated = {*validation, *(data.validation.get(fold, ()) if fold else ())}
    if unknown := (tested | validated) - everyone:
        raise ModelError(
            f"The data has no patient {', '.join(sorted(unknown))}: it has {', '.join(sorted(everyone))}."
        )
    if both := tested & validated:
        raise ModelError(
            f"{', '.join(sorted(both))} cannot be a validation and a test patient at once: choose one."
        )
    if not (learned := everyone - tested - validated):
        raise ModelError("No patient is left to train on: keep fewer for validation and test.")
    return {"training": sorted(learned), "validation": sorted(validated), "test": sorted(tested)}


GUISES_SIZE = 256
"""Height and width of the slices that guises are put on."""


def read_for(path: str | os.PathLike[str], recipe: Recipe) -> LabelledSlices:
    """Read what a recipe teaches, as it is: `train_model` prepares it. Raises ScanError."""
    return read_training_set(path, outputs=recipe.outputs, size=max(recipe.size, GUISES_SIZE))


def teachable(recipe: Recipe, data: LabelledSlices) -> Recipe:
    """Return the recipe with those of its outputs that the data teaches.

    Where nobody has told ground-glass and consolidation apart, their union stands for them: "lesion".
    """
    taught = {name for name, some in zip(data.outputs, _taught(data), strict=True) if some}
    outputs = tuple(name for name in recipe.outputs if name in taught)
    if UNION in taught and not set(UNITED) <= taught and UNION not in outputs:
        outputs = (*(name for name in outputs if name not in UNITED), UNION)
    return replace(recipe, outputs=outputs or recipe.outputs)


def train_model(
    data: LabelledSlices,
    split: dict[str, list[str]],
    out: Path,
    recipe: Recipe | None = None,
    *,
    name: str = "",
    device: str = "cpu",
    checkpoint: Path | None = None,
    budget: float | None = None,
    half: bool | None = None,
    lungs_from: Model | None = None,
    stop: Callable[[], bool] = lambda: False,
    as_it_is: bool = False,
) -> Iterator[TrainingProgress | ModelCard]:
    """Train on the split's training patients and write a model file.

    Parameters
    ----------
    data : LabelledSlices
        From `read_for`, and prepared here as the recipe asks for.
    split : dict
        From `split_patients`; written into the card.
    out : Path
        The model file, ``.safetensors``.
    recipe : Recipe, optional
        Our own by default.
    name : str
        The model's id; the file's name by default.
    device : str
    checkpoint : Path, optional
        Where an interrupted run goes on from; beside `out` by default, kept when done.
    budget : float, optional
        Seconds that the run may take; see `within`.
    half : bool, optional
        Whether bfloat16 may take over where it does the same as float32; by default on a GPU.
    lungs_from : Model, optional
        Finds the lungs that all slices are cropped to; without it the network sees whole slices.
    stop : callable
        Asked after every step; once it says so, the checkpoint is written, and no model file.
    as_it_is : bool
        Write a model of the weights, averaged where the recipe averages, that the checkpoint holds so far.

    Yields
    ------
    TrainingProgress
        While training.
    ModelCard
        Of the model written; last.

    Raises
    ------
    ModelError
        If the checkpoint is damaged, or belongs to another recipe or other slices, or a file
        cannot be written, or the budget is too small for a step, or the recipe crops to the lungs
        and nobody finds them, or the model that it begins with has learned from who is kept out.
    """
    recipe = recipe or read_recipe()
    if recipe.warm_start:
        split = with_parents_patients(split, recipe.warm_start)
    if lungs_from is not None:
        recipe = replace(recipe, preparation={**recipe.preparation, "crop": "lungs"})
    preparation = Preparation.from_card(recipe.preparation)
    if preparation.crop == "lungs":
        if lungs_from is None:
            raise ModelError(f"{recipe.name} sees slices cropped to the lungs: name a model that finds them.")
        data = crop_to_lungs(data, lungs_from, preparation)
    checkpoint = checkpoint or out.with_suffix(".checkpoint")
    guised = recipe.augmentation == "guises"
    parts = {}
    for part, names in split.items():
        if names := sorted(set(names) & set(data.patients.tolist())):
            chosen = data.only(set(names))
            if guised and part == "training":
                parts[part] = chosen.resized(max(recipe.size, GUISES_SIZE))
            else:
                parts[part] = chosen.prepared(preparation)
    training, validation, test = (parts.get(part) for part in ("training", "validation", "test"))
    assert training is not None  # split_patients has seen to it
    # a slice of which nothing is known would only take its turn
    parts["training"] = training = training.rows((training.masks != UNKNOWN).any((1, 2, 3)))
    if untaught := [
        name for name, taught in zip(training.outputs, _taught(training), strict=True) if not taught
    ]:
        raise ModelError(
            f"The patients to train on teach nothing of {', '.join(untaught)}: add a source that "
            "labels it, or leave the output out."
        )
    if budget is not None:
        recipe = within(budget, recipe, training, validation, test, device=device, checkpoint=checkpoint)
    half = device.startswith("cuda") if half is None else half
    for event in train(
        recipe,
        training,
        validation,
        device=device,
        checkpoint=checkpoint,
        half=half,
        stop=stop,
        as_it_is=as_it_is,
    ):
        if isinstance(event, TrainingProgress):
            yield event
        else:
            card = _card(recipe, event, data, split, parts, name or out.stem, device)
            save_model(out, event.network, card)
            yield card


def with_parents_patients(split: dict[str, list[str]], path: str) -> dict[str, list[str]]:
    """Return a split in which those count as taught from whom the model that is begun with has learned.

    Raises
    ------
    ModelError
        If any of them is to be tested on: the figures would not be blind.
    """
    parent = read_card(path)
    seen = {*parent.split.get("training", ()), *parent.split.get("validation", ())}
    if leaked := sorted(seen & set(split.get("test", ()))):
        raise ModelError(
            f"{path} has learned from {', '.join(leaked)}, who are kept out here: begin with a model that "
            "has not, or keep out others."
        )
    known = seen - {*split.get("validation", ())}
    return {**split, "training": sorted({*split["training"], *known})}


def _taught(training: LabelledSlices) -> list[bool]:
    return [bool((training.masks[:, channel] == 1).any()) for channel in range(len(training.outputs))]


def device_name(device: str) -> str:
    """Return what to call a device in a table: the GPU's own name, or ``"cpu"``."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _card(
    recipe: Recipe,
    trained: TrainedNetwork,
    data: LabelledSlices,
    split: dict[str, list[str]],
    parts: dict[str, LabelledSlices],
    name: str,
    device: str,
) -> ModelCard:
    """Choose the thresholds, measure the network, and say what it is."""
    network = trained.network.to(device)
    thresholds = dict.fromkeys(data.outputs, 0.5)
    found = {
        part: probabilities(network, parts[part].images, data.outputs, device)
        for part in ("validation", "test")
        if part in parts
    }
    if isinstance(recipe.threshold, dict):
        thresholds |= {name: level for name, level in recipe.threshold.items() if name in data.outputs}
    elif recipe.threshold != "scan":
        thresholds |= {name: float(recipe.threshold) for name in data.outputs if name != "lungs"}
    elif "validation" in parts:
        thresholds = choose_thresholds(found["validation"], parts["validation"])
    scores: dict[str, Any] = {part: score(found[part], parts[part], thresholds) for part in found}
    network.cpu()
    facts = {key: getattr(trained, key) for key in ("steps", "best_step", "precision")}
    facts |= {"seconds": round(trained.seconds), "device": device_name(device)}
    if recipe.warm_start:
        facts["share_started_with"] = round(matching_share(network, recipe.warm_start), 4)
    facts |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    if scores:
        scores["protocol"] = (
            f"Dice pooled over each patient, then averaged; the network's output on {recipe.size}² pixels "
            "at the card's thresholds"
        )
    return ModelCard(
        id=name,
        title=f"{recipe.title or recipe.network} for {_listed(recipe.outputs)}"
        + (f" ({recipe.paper})" if recipe.paper else ""),
        summary=(
            f"Labels {_listed(recipe.outputs)} on axial chest CT, slice by slice. Trained on few patients, "
            "most with COVID-19: check every slice. It may take vessels in healthy lungs for ground-glass."
        ),
        network={"name": recipe.network, "settings": recipe.settings},
        preparation=Preparation.from_card(recipe.preparation).to_card(),
        outputs=recipe.outputs,
        thresholds=thresholds,
        tta=recipe.tta,
        trained_on=f"{len(parts['training'])} slices of {len(split['training'])} sources",
        split=split,
        recipe={**asdict(recipe), "warm_start": Path(recipe.warm_start).name, "trained": facts},
        scores=scores,
        licence=data.licence,
        sources=_licences(parts["training"]),
        created=datetime.date.today().isoformat(),
    )


def _licences(training: LabelledSlices) -> dict[str, str]:
    """Return the licence of each source that slices come from."""
    names = [] if training.sources is None else np.unique(training.sources).tolist()
    return {name: training.licences.get(name, "not stated") for name in names}


def _listed(outputs: Sequence[str]) -> str:
    """Name outputs as a person reads them: "lungs and lesions"."""
    words = ["lesions" if name == UNION else name for name in outputs]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def within(
    seconds: float,
    recipe: Recipe,
    training: LabelledSlices,
    validation: LabelledSlices | None = None,
    test: LabelledSlices | None = None,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
) -> Recipe:
    """Return the recipe, shortened if it would take longer than `seconds`.

    A few steps and a few validated slices are timed, with a network that is then thrown away.
    Where there is a checkpoint, the steps that were chosen when it was begun are kept: the run
    ends the same however often it is interrupted.

    Parameters
    ----------
    seconds : float
        For the whole run: steps, ten validations, and the scores at the end.
    recipe : Recipe
    training, validation, test : LabelledSlices
    device : str
    checkpoint : Path, optional

    Raises
    ------
    ModelError
        If the time is too short for a step, or the checkpoint is damaged.
    """
    if checkpoint is not None and checkpoint.exists():
        steps = steps_of(checkpoint)
        return recipe if steps == recipe.steps else recipe.shortened(steps or 1)
    started = time.perf_counter()
    step, look = _time_of_step(recipe, training, device), _time_of_slice(recipe, training, device)
    scored = 12 * len(validation or ()) + len(test or ())
    left = _RESERVE * seconds - scored * look - (time.perf_counter() - started)
    if left < step:
        raise ModelError(
            f"{seconds:.0f} s are too short to train and validate {recipe.name}: a step takes {step:.1f} s, "
            f"looking at all slices that are kept out {scored * look:.0f} s. Give it more time."
        )
    steps = int(left / step)
    return recipe if steps >= recipe.length(len(training)) else recipe.shortened(steps)


def _time_of_step(recipe: Recipe, training: LabelledSlices, device: str) -> float:
    """Seconds of a step, over all crop sizes of the recipe; the first one of each size is not timed."""
    # all parts at once, which takes longer than any phase
    run = TrainingRun(replace(recipe, phases=()), training, None, device)
    sample = Sampler(recipe, training, augmentation(recipe.augmentation, training.images.shape[-1]))
    shares = [0.0, *(share for share, _ in recipe.stages or ((1.0, 0),))]
    total = 0.0
    for begin, end in pairwise(shares):
        first = int(begin * run.steps)
        for step in range(first, first + 1 + _TIMED):
            started = time.perf_counter()
            images, masks = sample(step)
            run.update(images.to(device), masks.to(device))
            if step > first:
                total += (end - begin) * (time.perf_counter() - started) / _TIMED
    return total


def _time_of_slice(recipe: Recipe, training: LabelledSlices, device: str) -> float:
    """Seconds to validate one slice."""
    run = TrainingRun(recipe, training, None, device)
    few = training.rows(np.arange(min(8, len(training))))
    validate(run.average, few, device)
    started = time.perf_counter()
    validate(run.average, few, device)
    return (time.perf_counter() - started) / len(few)


def crop_to_lungs(data: LabelledSlices, model: Model, preparation: Preparation) -> LabelledSlices:
    """Return the slices cropped to the lungs and resized, with their masks.

    The lungs are the model's, never those of the truth: nobody has drawn them when a scan is
    labelled. Slices on which it finds none stay whole.

    Parameters
    ----------
    data : LabelledSlices
    model : Model
        With an output "lungs"; it must not have seen the patients that test.
    preparation : Preparation
        That of the network to train; its margin is in pixels of these slices.

    Raises
    ------
    ModelError
        If the model finds no lungs.
    """
    return cropped(
        data, [preparation.place(lungs.shape, lungs) for lungs in lungs_of(model, data)], preparation
    )


def cropped(
    data: LabelledSlices, places: Sequence[Placement | None], preparation: Preparation
) -> LabelledSlices:
    """Return the part of each slice that is named, resized, with its masks; slices without one stay whole."""
    images = np.zeros((len(data), preparation.size, preparation.size), np.uint8)
    masks = np.zeros((len(data), data.masks.shape[1], *images.shape[1:]), data.masks.dtype)
    kinds = data.kinds if data.kinds is not None else np.full(len(data), "equalised")
    for row, (image, placement, kind) in enumerate(zip(data.images, places, kinds, strict=True)):
        images[row] = prepare(preparation, image, str(kind), placement)
        for channel, mask in enumerate(data.masks[row]):
            masks[row, channel] = shrink(placement.part(mask) if placement else mask, preparation.size)
    return replace(data, images=images, masks=masks, kinds=None)


def lungs_of(model: Model, data: LabelledSlices) -> npt.NDArray[np.uint8]:
    """Return where a model finds lungs, (n, y, x), without specks: 1 or 0."""
    if "lungs" not in model.card.outputs:
        raise ModelError(f"The model {model.card.id} finds no lungs: choose one that does.")
    channel, threshold = model.card.outputs.index("lungs"), least(model.card.thresholds["lungs"])
    images, size = data.prepared(model.preparation).images, data.images.shape[-1]
    sure = probabilities(model.network, images, model.card.outputs, model.device, size=size)[:, channel]
    found = np.zeros(data.images.shape, np.uint8)
    for mask, lungs in zip(found, sure >= threshold, strict=True):
        parts, sizes = numbered(lungs, touching="corners")
        mask[:] = (sizes >= _SPECK * lungs.size)[parts]
    return found
