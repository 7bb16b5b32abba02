"""One training run, from top to bottom: sample, augment, step, validate, keep the best."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from napari_covseg.errors import ModelError
from napari_covseg.learn.augment import Augmentation
from napari_covseg.learn.training_set import OUTPUTS, TrainingSet
from napari_covseg.metrics import dice
from napari_covseg.networks.build import build_network


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run; written into the model's card.

    Attributes
    ----------
    steps, batch : int
        Optimiser steps, and slices per step.
    stages : tuple of (float, int)
        (share of the steps done, crop size in pixels): small crops first, whole slices last.
        A crop costs in proportion to its area and still holds most of the lungs.
    learning_rate : float
        Peak of a one-cycle schedule (AdamW).
    average : float
        Decay of the moving average of the weights, which is what is validated and kept.
    negatives, balance : float
        Share of slices from sources without lungs; exponent of a patient's slice count in
        its sampling weight (1: every slice alike, 0: every patient alike).
    """

    network: str = "unet"
    settings: dict[str, Any] = field(default_factory=lambda: {"features": [16, 32, 64, 128], "bottleneck": 256})
    steps: int = 1600
    batch: int = 6
    stages: tuple[tuple[float, int], ...] = ((0.4, 160), (0.85, 192), (1.0, 256))
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    average: float = 0.99
    negatives: float = 0.08
    balance: float = 0.5
    validate_every: int = 200
    seed: int = 0


@dataclass(frozen=True)
class TrainingProgress:
    """What a training run tells after some steps; `validation` is None between validations."""

    step: int
    steps: int
    loss: float
    seconds: float
    validation: dict[str, float] | None = None
    best: bool = False


def train(
    recipe: Recipe,
    training: TrainingSet,
    validation: TrainingSet | None = None,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
) -> Iterator[TrainingProgress | nn.Module]:
    """Train a network; the last thing yielded is the network itself.

    Every step's slices and augmentation depend only on the seed and the step, so that a
    run which continues from its checkpoint sees what an uninterrupted one would have seen.

    Parameters
    ----------
    recipe : Recipe
    training, validation : TrainingSet
        Without validation slices the weights after the last step are kept.
    device : str
    checkpoint : Path, optional
        Written at every validation; if it exists, the run goes on from there.

    Yields
    ------
    TrainingProgress
        After every tenth step and every validation.
    Module
        The best network, in evaluation mode on the CPU.

    Raises
    ------
    ModelError
        If the checkpoint belongs to another recipe.
    """
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.network, OUTPUTS, recipe.settings)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps, pct_start=0.15)
    average = copy.deepcopy(network).eval()
    state = {"step": 0, "best": -1.0, "weights": average.state_dict()}
    if checkpoint is not None and checkpoint.exists():
        state = _resume(checkpoint, recipe, network, average, optimiser, schedule)
    augment = Augmentation()
    weights = _sampling_weights(recipe, training)
    started, losses = time.perf_counter(), []
    for step in range(int(state["step"]), recipe.steps):
        images, masks = _sample(recipe, step, training, weights, augment)
        network.train()
        loss = segmentation_loss(network(images.to(device)), masks.to(device))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        _follow(average, network, min(recipe.average, (step + 1) / (step + 10)))
        losses.append(float(loss.detach()))
        last = step + 1 == recipe.steps
        if (step + 1) % recipe.validate_every == 0 or last:
            scores = score(average, validation, device) if validation is not None else None
            value = float(np.mean(list(scores.values()))) if scores else float(step)
            best = value > float(state["best"])
            if best:
                state.update(best=value, weights={k: v.clone() for k, v in average.state_dict().items()})
            state["step"] = step + 1
            if checkpoint is not None:
                _write_checkpoint(checkpoint, recipe, state, network, average, optimiser, schedule)
            yield TrainingProgress(step + 1, recipe.steps, np.mean(losses), time.perf_counter() - started, scores, best)
            losses = []
        elif (step + 1) % 10 == 0:
            yield TrainingProgress(step + 1, recipe.steps, np.mean(losses[-10:]), time.perf_counter() - started)
    average.load_state_dict(state["weights"])  # type: ignore[arg-type]
    yield average.cpu().eval()


def segmentation_loss(logits: dict[str, Tensor], masks: Tensor) -> Tensor:
    """Mean over the outputs of binary cross-entropy plus (1 - Dice over the batch).

    Parameters
    ----------
    logits : dict of str to Tensor, shape (n, 1, h, w)
    masks : Tensor of float, shape (n, len(OUTPUTS), h, w)
    """
    stacked = torch.cat([logits[name] for name in OUTPUTS], 1)
    overlap: Tensor = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)(stacked, masks)
    return F.binary_cross_entropy_with_logits(stacked, masks) + overlap


@torch.inference_mode()
def score(network: nn.Module, slices: TrainingSet, device: str = "cpu", batch: int = 4) -> dict[str, float]:
    """Dice per output, pooled over each patient and then averaged over the patients."""
    predicted = np.zeros(slices.masks.shape, np.bool_)
    network.eval()
    for start in range(0, len(slices), batch):
        images = as_input(slices.images[start : start + batch]).to(device)
        logits = network(images.contiguous(memory_format=torch.channels_last))
        predicted[start : start + batch] = (torch.cat([logits[n] for n in OUTPUTS], 1) > 0).cpu().numpy()
    scores = {}
    for channel, name in enumerate(OUTPUTS):
        per_patient = []
        for patient in np.unique(slices.patients):
            rows = slices.patients == patient
            per_patient.append(dice(predicted[rows, channel], slices.masks[rows, channel]))
        scores[name] = float(np.mean(per_patient))
    return scores


def as_input(images: npt.NDArray[np.uint8]) -> Tensor:
    """Turn prepared slices, shape (n, h, w), into network input of shape (n, 1, h, w) in [0, 1]."""
    return torch.from_numpy(images).unsqueeze(1).float().div_(255.0)


def _sampling_weights(recipe: Recipe, training: TrainingSet) -> npt.NDArray[np.float64]:
    names, inverse, counts = np.unique(training.patients, return_inverse=True, return_counts=True)
    share = counts**recipe.balance
    negative = np.isin(names, sorted(training.negatives))
    if negative.any() and not negative.all():
        share[negative] *= recipe.negatives / share[negative].sum() * share.sum()
        share[~negative] *= (1 - recipe.negatives) / share[~negative].sum() * share.sum()
    weights = (share / counts)[inverse]
    return np.asarray(weights / weights.sum(), np.float64)


def _sample(
    recipe: Recipe, step: int, training: TrainingSet, weights: npt.NDArray[np.float64], augment: Augmentation
) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng([recipe.seed, step])
    size = next(size for share, size in recipe.stages if step < share * recipe.steps or share == recipe.stages[-1][0])
    rows = random.choice(len(training), recipe.batch, p=weights)
    images, masks = as_input(training.images[rows]), torch.from_numpy(training.masks[rows]).float()
    return augment(images, masks, size, random)


def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def _write_checkpoint(
    path: Path, recipe: Recipe, state: dict[str, Any], network: nn.Module, average: nn.Module, optimiser: Any, schedule: Any
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(
        {
            "recipe": asdict(recipe), "state": state, "network": network.state_dict(), "average": average.state_dict(),
            "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(),
        },
        part,
    )  # fmt: skip
    part.replace(path)


def _resume(
    path: Path, recipe: Recipe, network: nn.Module, average: nn.Module, optimiser: Any, schedule: Any
) -> dict[str, Any]:
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["recipe"] != asdict(recipe):
        raise ModelError(f"The checkpoint {path} was written with another recipe: delete it or give its settings.")
    network.load_state_dict(saved["network"])
    average.load_state_dict(saved["average"])
    optimiser.load_state_dict(saved["optimiser"])
    schedule.load_state_dict(saved["schedule"])
    state: dict[str, Any] = saved["state"]
    return state
