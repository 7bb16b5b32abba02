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
from torch import Tensor, nn

from napari_covseg.errors import ModelError
from napari_covseg.learn.augment import Augmentation
from napari_covseg.learn.averaging import follow
from napari_covseg.learn.loss import segmentation_loss
from napari_covseg.learn.training_set import OUTPUTS, TrainingSet
from napari_covseg.metrics import dice
from napari_covseg.networks.build import build_network


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run; written into the model's card.

    Attributes
    ----------
    network, settings : str, dict
        For `networks.build.build_network`.
    steps, batch : int
        Optimiser steps, and slices per step.
    stages : tuple of (float, int)
        (share of the steps done, crop size in pixels): small crops first, whole slices last.
        A crop costs in proportion to its area and still holds most of the lungs.
    learning_rate, weight_decay : float
        Peak of a one-cycle schedule, and decay, of AdamW.
    average : float
        Decay of the moving average of the weights, which is what is validated and kept.
    negatives : float
        Share of slices from sources without lungs.
    slab : float
        Share of slices that are averaged with up to three neighbours on either side, as in a
        scan of thick slices: vessels turn into streaks and blurs that are no ground-glass.
    balance : float
        Exponent of a patient's slice count in its sampling weight (1: every slice alike,
        0: every patient alike).
    validate_every : int
        Steps from one validation, and checkpoint, to the next.
    seed : int
    """

    network: str = "unet"
    settings: dict[str, Any] = field(
        default_factory=lambda: {"features": [16, 32, 64, 128], "bottleneck": 256}
    )
    steps: int = 1300
    batch: int = 6
    stages: tuple[tuple[float, int], ...] = ((0.4, 160), (0.85, 192), (1.0, 256))
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    average: float = 0.99
    negatives: float = 0.08
    slab: float = 0.4
    balance: float = 0.5
    validate_every: int = 130
    seed: int = 0


@dataclass(frozen=True)
class TrainingProgress:
    """What a training run tells after some steps.

    Attributes
    ----------
    step, steps : int
    loss : float
        Mean since the last message.
    seconds : float
        Since this process started the run.
    validation : dict of str to float, or None
        Dice per output, where there was a validation at this step.
    best : bool
        Whether these weights are the best so far.
    """

    step: int
    steps: int
    loss: float
    seconds: float
    validation: dict[str, float] | None = None
    best: bool = False


_PARTS = ("network", "average", "optimiser", "schedule")


class _Run:
    """All that changes while a network is trained; what a checkpoint holds."""

    def __init__(self, recipe: Recipe, device: str, data: list[int]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.data = recipe, data
        network = build_network(recipe.network, OUTPUTS, recipe.settings)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval()
        parameters = self.network.parameters()
        self.optimiser = torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.learning_rate, recipe.steps, pct_start=0.15
        )
        self.state: dict[str, Any] = {"step": 0, "best": -1.0, "weights": self.average.state_dict()}

    def update(self, images: Tensor, masks: Tensor) -> float:
        """Take one optimiser step and return its loss."""
        self.network.train()
        loss = segmentation_loss(stacked(self.network(images)), masks)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.schedule.step()
        self.state["step"] += 1
        step = self.state["step"]
        follow(self.average, self.network, min(self.recipe.average, step / (step + 9)))
        return float(loss.detach())

    def keep_if_best(self, value: float) -> bool:
        """Keep the averaged weights if `value` is above all before."""
        if value <= self.state["best"]:
            return False
        weights = {name: tensor.clone() for name, tensor in self.average.state_dict().items()}
        self.state.update(best=value, weights=weights)
        return True

    def write(self, path: Path) -> None:
        """Write the checkpoint; an interrupted write leaves the one before."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        saved = {"recipe": asdict(self.recipe), "data": self.data, "state": self.state, **parts}
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(saved, part)
            part.replace(path)
        except (OSError, RuntimeError) as error:  # torch's own error where the disk is full
            raise ModelError(
                f"The checkpoint {path} cannot be written ({_first_line(error)}): make room or choose "
                "another folder."
            ) from error

    def read(self, path: Path) -> None:
        """Go on from a checkpoint; ModelError if it is damaged, or of another recipe or other slices."""
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            same = saved["recipe"] == asdict(self.recipe) and saved.get("data", self.data) == self.data
            if same:
                for name in _PARTS:
                    getattr(self, name).load_state_dict(saved[name])
                self.state = saved["state"]
        except Exception as error:  # torch.load raises what it likes on a damaged file
            raise ModelError(
                f"The checkpoint {path} cannot be read ({_first_line(error)}): delete it to start anew."
            ) from error
        if not same:  # other patients above all: the card would deny that the weights have seen them
            raise ModelError(
                f"The checkpoint {path} was written with another recipe or other slices: delete it to start "
                "anew, or give its settings."
            )


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
        If the checkpoint is damaged, or belongs to another recipe or other slices, or
        cannot be written.
    """
    run = _Run(recipe, device, [part.checksum() for part in (training, validation) if part is not None])
    if checkpoint is not None and checkpoint.exists():
        run.read(checkpoint)
    augment, weights = Augmentation(), sampling_weights(recipe, training)
    started, losses = time.perf_counter(), []
    while run.state["step"] < recipe.steps:
        images, masks = _sample(recipe, run.state["step"], training, weights, augment)
        losses.append(run.update(images.to(device), masks.to(device)))
        step, seconds = run.state["step"], time.perf_counter() - started
        if step % recipe.validate_every == 0 or step == recipe.steps:
            scores = score(run.average, validation, device) if validation is not None else None
            best = run.keep_if_best(float(np.mean(list(scores.values()))) if scores else float(step))
            if checkpoint is not None:
                run.write(checkpoint)
            yield TrainingProgress(step, recipe.steps, float(np.mean(losses)), seconds, scores, best)
            losses = []
        elif step % 10 == 0:
            yield TrainingProgress(step, recipe.steps, float(np.mean(losses[-10:])), seconds)
    run.average.load_state_dict(run.state["weights"])
    yield run.average.cpu().eval()


def stacked(logits: dict[str, Tensor]) -> Tensor:
    """Return the outputs, each of shape (n, 1, h, w), as channels: (n, len(OUTPUTS), h, w)."""
    return torch.cat([logits[name] for name in OUTPUTS], 1)


@torch.inference_mode()
def score(network: nn.Module, slices: TrainingSet, device: str = "cpu", batch: int = 4) -> dict[str, float]:
    """Dice per output, pooled over each patient and then averaged over the patients."""
    predicted = np.zeros(slices.masks.shape, np.bool_)
    network.eval()
    for start in range(0, len(slices), batch):
        images = as_input(slices.images[start : start + batch]).to(device)
        logits = network(images.contiguous(memory_format=torch.channels_last))
        predicted[start : start + batch] = (stacked(logits) > 0).cpu().numpy()
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


def sampling_weights(recipe: Recipe, training: TrainingSet) -> npt.NDArray[np.float64]:
    """Probability of each slice: patients by `balance`, sources without lungs by `negatives`."""
    names, inverse, counts = np.unique(training.patients, return_inverse=True, return_counts=True)
    share = counts**recipe.balance * [training.weights.get(str(name), 1.0) for name in names]
    negative = np.isin(names, sorted(training.negatives))
    if negative.any() and not negative.all():
        share[negative] *= recipe.negatives / share[negative].sum()
        share[~negative] *= (1 - recipe.negatives) / share[~negative].sum()
    weights = (share / counts)[inverse]
    return np.asarray(weights / weights.sum(), np.float64)


def _sample(
    recipe: Recipe, step: int, training: TrainingSet, weights: npt.NDArray[np.float64], augment: Augmentation
) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng([recipe.seed, step])
    sizes = [size for share, size in recipe.stages if step < share * recipe.steps] or [recipe.stages[-1][1]]
    rows = random.choice(len(training), recipe.batch, p=weights)
    reach = np.where(random.random(recipe.batch) < recipe.slab, random.integers(1, 4, recipe.batch), 0)
    slabs = [slab(training, row, thick) for row, thick in zip(rows, reach, strict=True)]
    images, masks = (np.stack(part) for part in zip(*slabs, strict=True))
    return augment(as_input(images), torch.from_numpy(masks).float(), sizes[0], random)


def slab(training: TrainingSet, row: int, reach: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Average a slice with its neighbours, as a thicker slice would have shown them.

    Parameters
    ----------
    training : TrainingSet
        Slices of a patient in the order of the scan.
    row : int
        The middle slice.
    reach : int
        Neighbours on either side, of the same patient only; 0 gives the slice itself.

    Returns
    -------
    image : ndarray of uint8, shape (size, size)
    masks : ndarray of bool, shape (len(OUTPUTS), size, size)
        What most of the slices show.
    """
    near = slice(max(0, row - reach), row + reach + 1)
    same = training.patients[near] == training.patients[row]
    images, masks = training.images[near][same], training.masks[near][same]
    return images.mean(0).round().astype(np.uint8), masks.mean(0) > 0.5


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
