"""A model learns from a few corrected slices: a minute at most, and never worse off than before."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from napari_covseg.errors import ModelError
from napari_covseg.learn.augment import Warp, warp
from napari_covseg.learn.loss import segmentation_loss
from napari_covseg.learn.regression import interpolate
from napari_covseg.learn.score import score_model
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.learn.train import update_average
from napari_covseg.models.file import Model
from napari_covseg.models.forward import as_input, heads, stacked


@dataclass(frozen=True)
class FinetuneSettings:
    """How a model is fine-tuned; written into its card.

    Attributes
    ----------
    steps : int
        Optimiser steps at most.
    seconds : float, optional
        Time at most; the learning rate falls to nothing by then.
    batch : int
        Corrected slices per step.
    learning_rate : float
        Peak of AdamW's; it rises over a tenth of the steps and falls along a cosine.
    weight_decay : float
    average : float
        Decay of the moving average of the weights.
    interpolation : float
        How far to go from the parent's weights (0) to that average (1); what lies between is
        measured and kept. It forgets less and is hardly worse on the corrected case; see
        `regression.interpolate`.
    crop : int
        Height and width, in pixels, of what a step sees of a slice; a step costs in proportion.
    freeze : tuple of str
        Beginnings of the names of parameters that stay as they are.
    warp : Warp, optional
        Augmentation; None leaves it out.
    memory_batch : int
        Slices of the memory per step.
    memory_weight : float
        Of the memory's loss.
    hold_out : float
        Share of the corrected slices that decides and is not learned from.
    tolerance : float
        Dice, divided by the number of held-out slices, by which later weights may score below
        the best and still be kept: a few slices tell less than further steps bring.
    measure_every : int
        Steps from one look at the held-out slices to the next.
    seed : int
    """

    steps: int = 45
    seconds: float | None = None
    batch: int = 4
    learning_rate: float = 4e-4
    weight_decay: float = 1e-4
    average: float = 0.9
    interpolation: float = 0.5
    crop: int = 192
    freeze: tuple[str, ...] = ("encoders",)
    warp: Warp | None = field(default_factory=Warp)
    memory_batch: int = 4
    memory_weight: float = 1.0
    hold_out: float = 0.2
    tolerance: float = 0.2
    measure_every: int = 15
    seed: int = 0


@dataclass(frozen=True)
class FinetuneProgress:
    """What is told after every step, and once before the first.

    Attributes
    ----------
    step, steps : int
        Steps done, and at most.
    loss : float
        Of this step; NaN before the first.
    seconds : float
        Since the beginning.
    held_out : dict of str to float, or None
        Dice per output on the held-out slices, where it was measured.
    best : bool
        Whether these weights are the best so far.
    """

    step: int
    steps: int
    loss: float
    seconds: float
    held_out: dict[str, float] | None = None
    best: bool = False


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """The best weights, and how they came about.

    Attributes
    ----------
    model : Model
        Ready to predict, on the device of its parent, with its parent's card.
    step : int
        The step of these weights; 0 is the parent itself.
    losses : ndarray of float, shape (steps done,)
    measured : ndarray of int, shape (m,)
        The steps at which the held-out slices were looked at.
    held_out : ndarray of float, shape (m, outputs)
        Their Dice; NaN without held-out slices.
    seconds : float
    """

    model: Model
    step: int
    losses: npt.NDArray[np.float64]
    measured: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.float64]
    seconds: float


def finetune(
    model: Model,
    corrected: LabelledSlices,
    held_out: LabelledSlices | None = None,
    memory: LabelledSlices | None = None,
    settings: FinetuneSettings | None = None,
) -> Iterator[FinetuneProgress | FinetuneResult]:
    """Fine-tune a copy of a model; `Finetuning` says more, and can be asked for its result at any time.

    Yields
    ------
    FinetuneProgress
        After every step, and once before the first.
    FinetuneResult
        Last.
    """
    run = Finetuning(model, corrected, held_out, memory, settings)
    yield from run.steps()
    yield run.result()


class Finetuning:
    """One fine-tuning of a copy of a model. The model itself never changes.

    Normalisation layers keep what they have learned: in a loaded model they are folded
    into their convolutions, and any others stay in evaluation mode. Every step's slices
    and augmentation depend only on the seed and the step.

    Parameters
    ----------
    model : Model
    corrected : LabelledSlices
        What a person has corrected or accepted; at least one.
    held_out : LabelledSlices, optional
        Choose the best weights; without them the last are kept.
    memory : LabelledSlices, optional
        What the model said before, as probabilities, on slices that it should not forget.
    settings : FinetuneSettings, optional

    Raises
    ------
    ModelError
        If there is nothing to learn from.
    """

    def __init__(
        self,
        model: Model,
        corrected: LabelledSlices,
        held_out: LabelledSlices | None = None,
        memory: LabelledSlices | None = None,
        settings: FinetuneSettings | None = None,
    ) -> None:
        if not len(corrected):
            raise ModelError("There is nothing to learn from: correct or accept a few slices first.")
        self.settings = settings or FinetuneSettings()
        self._parent = model
        self._held_out = held_out if held_out is not None and len(held_out) else None
        self._corrected = _Crops(corrected, model)
        self._memory = _Crops(memory, model) if memory is not None and len(memory) else None
        self._network = _trainable(model.network, self.settings.freeze)
        self._average = copy.deepcopy(model.network).eval()
        self._best, self._best_step, self._best_score = copy.deepcopy(self._average), 0, -1.0
        self._losses: list[float] = []
        self._curve: list[tuple[int, list[float]]] = []
        self._seconds = 0.0

    def steps(self) -> Iterator[FinetuneProgress]:
        """Learn; between two steps it may be left for good, and `result` asked."""
        settings, network = self.settings, self._network
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimiser = AdamW(parameters, settings.weight_decay)
        started = time.perf_counter()
        yield self._look(0, float("nan"))
        for step in range(1, settings.steps + 1):
            done = self._share_done(step)
            if done >= 1 and step > 1:
                if self._unseen:
                    yield self._look(len(self._losses), self._losses[-1])
                break
            loss = self._loss(np.random.default_rng([settings.seed, step]))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step(settings.learning_rate * _schedule(done))
            update_average(self._average, network, min(settings.average, step / (step + 4)))
            self._losses.append(float(loss.detach()))
            self._seconds = time.perf_counter() - started
            if step % settings.measure_every == 0 or step == settings.steps:
                yield self._look(step, self._losses[-1])
            else:
                yield FinetuneProgress(step, settings.steps, self._losses[-1], self._seconds)

    def result(self) -> FinetuneResult:
        """Return the best so far; without held-out slices, the last."""
        if self._held_out is not None and self._unseen:
            self._look(len(self._losses), self._losses[-1])
        network, step = self._best, self._best_step
        if self._held_out is None:
            network, step = self._candidate(), len(self._losses)
        return FinetuneResult(
            model=replace(self._parent, network=copy.deepcopy(network).eval().requires_grad_(False)),
            step=step,
            losses=np.array(self._losses, np.float64),
            measured=np.array([step for step, _ in self._curve], np.int64),
            held_out=np.array([row for _, row in self._curve], np.float64).reshape(
                -1, len(self._parent.card.outputs)
            ),
            seconds=self._seconds,
        )

    def _loss(self, random: np.random.Generator) -> Tensor:
        settings = self.settings
        images, targets, weight = self._corrected.sample(settings.batch, settings.crop, settings.warp, random)
        if self._memory is not None and settings.memory_batch:
            old = self._memory.sample(settings.memory_batch, settings.crop, settings.warp, random)
            logits = self._logits(torch.cat([images, old[0]]))
            new = len(images)
            # with its Dice part: lesions are a hundredth of the pixels, and would hardly count
            remembered = segmentation_loss(logits[new:], old[1], old[2])
            return segmentation_loss(logits[:new], targets, weight) + settings.memory_weight * remembered
        return segmentation_loss(self._logits(images), targets, weight)

    def _logits(self, images: Tensor) -> Tensor:
        where = self._parent.device
        # in hardware, bfloat16 halves the time of a step; elsewhere it is emulated, and slow
        with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cpu" and _has_bfloat16()):
            logits = heads(self._network, images)
        return stacked(logits, self._parent.card.outputs)

    def _look(self, step: int, loss: float) -> FinetuneProgress:
        """Measure the weights as they would be kept, and keep them if they are the best."""
        scores, best = None, self._held_out is None
        if self._held_out is not None:
            candidate = self._candidate()
            scores = score_model(replace(self._parent, network=candidate), self._held_out)
            value = float(np.mean(list(scores.values()))) if scores else 0.0
            self._curve.append((step, [scores.get(name, np.nan) for name in self._parent.card.outputs]))
            if best := value >= self._best_score - self.settings.tolerance / len(self._held_out):
                self._best = candidate
                self._best_score, self._best_step = max(value, self._best_score), step
        return FinetuneProgress(step, self.settings.steps, loss, self._seconds, scores, best)

    def _candidate(self) -> nn.Module:
        """Return the network between the parent and what has been learned."""
        learned = replace(self._parent, network=self._average)
        return copy.deepcopy(interpolate(self._parent, learned, self.settings.interpolation).network).eval()

    @property
    def _unseen(self) -> bool:
        """Whether steps were taken since the held-out slices were looked at."""
        return bool(self._losses) and (not self._curve or self._curve[-1][0] < len(self._losses))

    def _share_done(self, step: int) -> float:
        """Share of the steps, or of the time, that is over when `step` begins."""
        by_steps = (step - 1) / self.settings.steps
        limit = self.settings.seconds
        return by_steps if limit is None else max(by_steps, self._seconds / limit)


class AdamW:
    """torch's AdamW by its function.

    The first optimiser object of `torch.optim` in a process imports torch's compiler: four seconds, in a
    process that a person waits for.

    Parameters
    ----------
    parameters : sequence of Tensor
    weight_decay : float
    """

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        self._weight_decay = weight_decay
        self._states = [
            (parameter, torch.zeros_like(parameter), torch.zeros_like(parameter), torch.zeros(()))
            for parameter in parameters
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Change every parameter that has a gradient, in place, and clear the gradients."""
        states = [state for state in self._states if state[0].grad is not None]
        parameters, means, squares, steps = (list(part) for part in zip(*states, strict=True))
        gradients = [parameter.grad for parameter in parameters]
        adamw(
            parameters, gradients, means, squares, [], steps, amsgrad=False, beta1=0.9, beta2=0.999,
            lr=learning_rate, weight_decay=self._weight_decay, eps=1e-8, maximize=False,
        )  # fmt: skip
        for parameter in parameters:
            parameter.grad = None


class _Crops:
    """Labelled slices as tensors, from which crops are drawn."""

    def __init__(self, slices: LabelledSlices, model: Model) -> None:
        self.images = as_input(slices.images, model.device)
        soft = np.issubdtype(slices.masks.dtype, np.floating)
        labelled = slices.masks >= 0.5 if soft else slices.masks == 1
        targets = torch.from_numpy(slices.masks if soft else labelled).float()
        known = torch.from_numpy(slices.masks != UNKNOWN).float()
        self.targets = torch.cat([targets, known], 1).to(model.device)
        self.middles = torch.tensor([_middle(mask) for mask in labelled], dtype=torch.float32)

    def sample(
        self, number: int, size: int, how: Warp | None, random: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, targets and weights of random crops."""
        count, outputs = len(self.images), self.targets.shape[1] // 2
        # every slice once before any comes again
        rows = np.concatenate([random.permutation(count) for _ in range(-(-number // count))])[:number]
        size = min(size, self.images.shape[-1])
        images, both = warp(self.images[rows], self.targets[rows], self.middles[rows], size, how, random)
        return images, both[:, :outputs], both[:, outputs:]


def _trainable(network: nn.Module, freeze: tuple[str, ...]) -> nn.Module:
    """Return a copy that learns; normalisation that is left stays in evaluation mode."""
    copied = copy.deepcopy(network).eval()
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_(not name.startswith(freeze) if freeze else True)
    return copied


def _has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; torch does not tell in public."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())


def _schedule(done: float) -> float:
    """Share of the peak learning rate when this share of the work is done."""
    rise = 0.1
    if done < rise:
        return (done + 0.02) / (rise + 0.02)
    return 0.5 + 0.5 * float(np.cos(np.pi * min(1.0, (done - rise) / (1 - rise))))


def _middle(target: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Middle of what is labelled in any output, (y, x) in pixels; of the slice if nothing is."""
    labelled = np.any(target, axis=0)
    middle = []
    for axis in (1, 0):
        there = np.flatnonzero(np.any(labelled, axis=axis))
        size = labelled.shape[1 - axis]
        middle.append((there[0] + there[-1]) / 2 if len(there) else (size - 1) / 2)
    return float(middle[0]), float(middle[1])
