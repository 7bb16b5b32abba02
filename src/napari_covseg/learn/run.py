"""From labelled data to a model file: choose the patients, train, write the card."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from napari_covseg.errors import ModelError
from napari_covseg.learn.train import Recipe, TrainingProgress, score, train
from napari_covseg.learn.training_set import OUTPUTS, TrainingSet
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import save_model
from napari_covseg.models.preparation import Preparation


def split_patients(
    data: TrainingSet, fold: str | None = None, validation: Sequence[str] = (), test: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Divide the patients, never the slices, into training, validation and test.

    Parameters
    ----------
    data : TrainingSet
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


def train_model(
    data: TrainingSet,
    split: dict[str, list[str]],
    out: Path,
    recipe: Recipe | None = None,
    *,
    name: str = "",
    device: str = "cpu",
    checkpoint: Path | None = None,
) -> Iterator[TrainingProgress | ModelCard]:
    """Train on the split's training patients and write a model file.

    Parameters
    ----------
    data : TrainingSet
    split : dict
        From `split_patients`; written into the card.
    out : Path
        The model file, ``.safetensors``.
    recipe : Recipe, optional
    name : str
        The model's id; the file's name by default.
    device : str
    checkpoint : Path, optional
        Where an interrupted run goes on from; beside `out` by default, kept when done.

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
        cannot be written.
    """
    recipe = recipe or Recipe()
    checkpoint = checkpoint or out.with_suffix(".checkpoint")
    parts = {part: data.only(set(names)) for part, names in split.items() if names}
    network: nn.Module | None = None
    for told in train(
        recipe, parts["training"], parts.get("validation"), device=device, checkpoint=checkpoint
    ):
        if isinstance(told, nn.Module):
            network = told
        else:
            yield told
    assert network is not None  # the last thing that train yields
    scores: dict[str, Any] = {
        part: score(network, parts[part]) for part in ("validation", "test") if part in parts
    }
    if scores:
        scores["protocol"] = "Dice pooled over each patient, then averaged; the network's output at 0.5"
    card = ModelCard(
        id=name or out.stem,
        title=f"{'U-Net' if recipe.network == 'unet' else recipe.network} for lungs and lesions",
        summary=(
            "Labels lungs and COVID-19 lesions on axial chest CT, slice by slice. Trained on few patients, "
            "all with COVID-19: check every slice. It may take vessels in healthy lungs for ground-glass."
        ),
        network={"name": recipe.network, "settings": recipe.settings},
        preparation=Preparation().to_card(),
        outputs=OUTPUTS,
        thresholds=dict.fromkeys(OUTPUTS, 0.5),
        trained_on=f"{len(parts['training'])} slices of {len(split['training'])} sources",
        split=split,
        recipe=asdict(recipe),
        scores=scores,
        licence=data.licence,
        created=datetime.date.today().isoformat(),
    )
    save_model(out, network, card)
    yield card
