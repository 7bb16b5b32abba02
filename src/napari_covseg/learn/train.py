"""One training run, from top to bottom: sample, step, average, validate, keep the best, checkpoint."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from napari_covseg.errors import ModelError
from napari_covseg.files import replacing, write_text
from napari_covseg.learn.augment import augmentation
from napari_covseg.learn.loss import Loss
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.sampling import Sampler
from napari_covseg.learn.score import validate
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.models.file import load_network
from napari_covseg.models.forward import heads
from napari_covseg.networks.build import build_network
from napari_covseg.networks.efficientnet import load_imagenet

FORMAT = 2
"""Of a checkpoint."""
CHECKPOINT_EVERY = 300.0
"""Seconds of training that an interruption costs at most."""
_PROGRESS_EVERY = 10.0
WARM_UP = 20
"""Steps in float32 before bfloat16 is compared with it: tiny logits of random weights are all rounding."""
_LOSS, _COSINE = 0.01, 0.95
_STATISTICS = 16
"""Batches that running statistics are recomputed from."""
_PARTS = ("network", "average", "optimiser", "schedule")


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training run is, after some steps.

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


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """What a training run ends with.

    Attributes
    ----------
    network : Module
        With the weights that were kept, in evaluation mode on the CPU.
    steps, best_step : int
        Steps taken, and the one whose weights were kept.
    seconds : float
        Of all steps and validations, without the pauses of an interrupted run.
    precision : str
        ``"float32"`` or ``"bfloat16"``, of the last step.
    """

    network: nn.Module
    steps: int
    best_step: int
    seconds: float
    precision: str


def train(
    recipe: Recipe,
    training: LabelledSlices,
    validation: LabelledSlices | None = None,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    half: bool = False,
    stop: Callable[[], bool] = lambda: False,
    as_it_is: bool = False,
) -> Iterator[TrainingProgress | TrainedNetwork]:
    """Train a network; the last item is the result.

    Every step's slices, augmentation and dropout depend only on the seed and the step, so
    that a run which continues from its checkpoint does what an uninterrupted one would
    have done, bit by bit with the same number of threads.

    Parameters
    ----------
    recipe : Recipe
    training, validation : LabelledSlices
        Prepared at the recipe's size, or as they are for a recipe with guises; validation slices are
        always prepared. Without them the weights after the last step are kept.
    device : str
    checkpoint : Path, optional
        Written at once, at every validation and every five minutes; if it exists, the run goes on
        from there. Beside it lies how far the run is, as JSON in ``<checkpoint>.progress``.
    half : bool
        Whether bfloat16 may take over from float32; see `learn.train`.
    stop : callable
        Asked after every step; once it says so, the checkpoint is written and the run ends there.
    as_it_is : bool
        Take no further step: yield what a checkpoint holds so far.

    Yields
    ------
    TrainingProgress
        After every tenth step and every validation.
    TrainedNetwork
        With the weights that were best; last, unless the run was stopped.

    Raises
    ------
    ModelError
        If the checkpoint is damaged, or belongs to another recipe or other slices, or
        cannot be written.
    """
    run = TrainingRun(recipe, training, validation, device, half)
    if checkpoint is not None and not run.resume(checkpoint):
        run.write(checkpoint)
    if as_it_is:
        run.keep(float("inf"))
        yield run.result()
        return
    sample = Sampler(recipe, training, augmentation(recipe.augmentation, training.images.shape[-1]))
    watched = recipe.selection == "loss"
    started, losses = time.perf_counter(), []
    written = reported = started
    while not run.done:
        images, masks = sample(run.step)
        losses.append(run.update(images.to(device), masks.to(device)))
        scores, best, now = None, False, time.perf_counter()
        if validated := run.step % run.validate_every == 0 or run.step in run.ends:
            value = float(run.step)
            if has_dropout(run.average):
                recent = range(max(0, run.step - _STATISTICS), run.step)
                recompute_statistics(run.average, (sample(step)[0].to(device) for step in recent))
            if validation is not None:
                scores, loss = validate(run.average, validation, device, run.loss if watched else None)
                known = [scores[name] for name in run.learned if name in scores]
                if watched:
                    value = -loss
                elif known:  # else nothing tells better from worse, and the last weights are kept
                    value = float(np.mean(known))
            best = run.keep(value)
        stopped = stop()
        if checkpoint is not None and (validated or stopped or now - written > CHECKPOINT_EVERY):
            run.write(checkpoint)
            written = now
        if checkpoint is not None and (validated or stopped or now - reported > _PROGRESS_EVERY):
            _write_progress(checkpoint, run, losses[-1])
            reported = now
        if stopped and not run.done:
            return
        if validated or run.step % 10 == 0:
            mean = float(np.mean(losses if validated else losses[-10:]))
            yield TrainingProgress(run.step, run.steps, mean, now - started, scores, best)
            losses = [] if validated else losses
    if checkpoint is not None:
        Path(f"{checkpoint}.progress").unlink(missing_ok=True)
    yield run.result()


def _write_progress(checkpoint: Path, run: TrainingRun, loss: float) -> None:
    """Write how far a run is for whoever looks from outside; a full disk does not end it."""
    facts = {"step": run.step, "steps": run.steps, "seconds": run.seconds, "loss": loss}
    facts |= {"time": time.time(), "pid": os.getpid()}
    with contextlib.suppress(OSError):
        write_text(Path(f"{checkpoint}.progress"), json.dumps(facts))


class TrainingRun:
    """A network, its optimiser, and the best weights so far.

    Parameters
    ----------
    recipe : Recipe
    training, validation : LabelledSlices
    device : str
    half : bool
        Whether to go on in bfloat16 after `precision.WARM_UP` steps, if it does the same there.

    Attributes
    ----------
    network, average : Module
        What is trained, and what is validated and kept: the moving average of its weights,
        or the network itself where the recipe has none.
    loss : Loss
        Of the phase at hand, if the recipe has phases.
    learned : tuple of str
        The outputs by which weights are chosen: all, or that of the phase at hand.
    steps, validate_every : int
    ends : set of int
        Steps after which a phase ends, the last one included.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: LabelledSlices,
        validation: LabelledSlices | None,
        device: str,
        half: bool = False,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.steps = recipe.length(len(training))
        self.validate_every = recipe.validate_every or recipe.epoch(len(training))
        self.ends = {round(share * self.steps) for share, _ in recipe.phases} | {self.steps}
        self.loss = Loss(recipe.loss, recipe.heads, training.outputs)
        self.learned = training.outputs
        network = build_network(recipe.network, recipe.outputs, recipe.settings)
        if recipe.pretrained:
            load_imagenet(network)
        if recipe.warm_start:
            network.load_state_dict(matching_weights(network, recipe.warm_start), strict=False)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval() if recipe.average else self.network
        self._phase, self._outputs, self._slices = "", training.outputs, len(training)
        self._begin(0)
        self._data = [part.checksum() for part in (training, validation) if part is not None]
        self._half = half
        self._since = time.perf_counter()
        self._state: dict[str, Any] = {
            "step": 0,
            "best_step": 0,
            "half": False,
            "best": float("-inf"),
            "weights": self.average.state_dict(),
            "without_better": 0,
            "seconds": 0.0,
        }

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return int(self._state["step"])

    @property
    def seconds(self) -> float:
        """Time that the run took, that before an interruption included."""
        return float(self._state["seconds"]) + time.perf_counter() - self._since

    @property
    def done(self) -> bool:
        """Whether all steps are taken, or validation has not improved for long enough."""
        first, _, _ = self.recipe.phase(self.steps - 1, self.steps)
        tired = 0 < self.recipe.patience <= self._state["without_better"]
        return self.step >= self.steps or (tired and self.step > first)

    def update(self, images: Tensor, masks: Tensor) -> float:
        """Take one optimiser step and return its loss."""
        if self.recipe.phases:
            self._enter()
        if self._half and self.step == WARM_UP:
            self._state["half"] = compare_precisions(self.network, self.loss, images, masks).good
        self.network.train()
        torch.manual_seed((self.recipe.seed << 32) + self.step)  # of dropout
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._state["half"]):
            logits = self.network(images)
        loss = self.loss(logits, masks)
        self.optimiser.zero_grad()
        loss.backward()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimiser.step()
        if self.recipe.schedule != "plateau":
            self.schedule.step()
        self._state["step"] += 1
        if self.recipe.average:
            update_average(self.average, self.network, min(self.recipe.average, self.step / (self.step + 9)))
        return float(loss.detach())

    def _begin(self, step: int) -> None:
        """Make a new optimiser, and the schedule of the phase that a step belongs to."""
        first, end, _ = self.recipe.phase(step, self.steps)
        self.optimiser = make_optimiser(self.recipe, self.network)
        self.schedule = make_schedule(replace(self.recipe, steps=end - first), self.optimiser, self._slices)

    def _enter(self) -> None:
        """Let the part of the network learn whose turn it is; a resumed run comes by in the middle."""
        first, _, part = self.recipe.phase(self.step, self.steps)
        if part != self._phase:
            self._phase, self.learned = part, (part,)
            heads = {name: float(name == part) for name in self.recipe.outputs}
            self.loss = Loss(self.recipe.loss, heads, self._outputs)
            for network in (self.network, self.average):
                network.learn_only(part)
        if self.step == first > 0:
            self.network.load_state_dict(self._state["weights"])
            self.average.load_state_dict(self._state["weights"])
            self._begin(self.step)
            self._state.update(best=float("-inf"), without_better=0)

    def keep(self, value: float) -> bool:
        """Take in a validation score, the higher the better; return whether it is the best so far."""
        if self.recipe.schedule == "plateau":
            self.schedule.step(value)  # type: ignore[arg-type]
        better = value > float(self._state["best"])
        self._state["without_better"] = 0 if better else self._state["without_better"] + 1
        if better or self.recipe.selection == "last":
            weights = {name: tensor.clone() for name, tensor in self.average.state_dict().items()}
            self._state.update(best=max(value, self._state["best"]), best_step=self.step, weights=weights)
        return better

    def result(self) -> TrainedNetwork:
        """Return the network with the weights that were kept, and how long it took."""
        self.average.load_state_dict(self._state["weights"])
        return TrainedNetwork(
            self.average.cpu().eval(),
            self.step,
            int(self._state["best_step"]),
            self.seconds,
            "bfloat16" if self._state["half"] else "float32",
        )

    def write(self, path: Path) -> None:
        """Write the checkpoint; an interrupted write leaves the one before."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        state = {**self._state, "seconds": self.seconds}
        saved = {
            "format": FORMAT,
            "recipe": self.recipe.decisive(),
            "data": self._data,
            "state": state,
            **parts,
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                torch.save(saved, part)
        except (OSError, RuntimeError) as error:  # torch's own error where the disk is full
            raise ModelError(
                f"The checkpoint {path} cannot be written ({_first_line(error)}): make room or choose "
                "another folder."
            ) from error

    def resume(self, path: Path) -> bool:
        """Go on from a checkpoint if there is one, and return whether there is.

        Raises
        ------
        ModelError
            If it is damaged, or of another recipe or other slices.
        """
        if not path.exists():
            return False
        saved = _read(path)
        if saved.get("format", 1) != FORMAT:
            raise ModelError(
                f"The checkpoint {path} was written by another version of napari-covseg: go on with "
                "that one, or delete it to start over."
            )
        try:
            same = saved["recipe"] == self.recipe.decisive() and saved["data"] == self._data
            if same:
                self._begin(max(0, saved["state"]["step"] - 1))  # that of the step taken last
                for name in _PARTS:
                    getattr(self, name).load_state_dict(saved[name])
                self._state, self._since = saved["state"], time.perf_counter()
        except Exception as error:  # what is not there, or does not fit
            raise _damaged(path, error) from error
        if not same:  # other patients above all: the card would deny that the weights have seen them
            raise ModelError(
                f"The checkpoint {path} was written with another recipe or other slices: delete it to start "
                "over, or give its settings."
            )
        return True


def steps_of(path: Path) -> int | None:
    """Return the steps that the recipe in a checkpoint asks for; ModelError if it is damaged."""
    try:
        steps: int | None = _read(path)["recipe"]["steps"]
    except (KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    return steps


def _read(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises what it likes on a damaged file
        raise _damaged(path, error) from error
    return saved


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"The checkpoint {path} cannot be read ({_first_line(error)}): delete it to start over."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


# What a step is made of


def make_optimiser(recipe: Recipe, network: nn.Module) -> optim.Optimizer:
    """Return the recipe's optimiser of all parameters."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    body = [p for name, p in network.named_parameters() if name.startswith("encoders.")]
    rest = [p for name, p in network.named_parameters() if not name.startswith("encoders.")]
    parameters = [{"params": rest, "lr": rate}]
    if body:
        parameters.append({"params": body, "lr": recipe.body_rate * rate})
    if recipe.optimiser == "sgd":
        return optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay)
    if recipe.optimiser == "adamw":
        return optim.AdamW(parameters, rate, weight_decay=decay)
    if recipe.optimiser == "adam":
        return optim.Adam(parameters, rate, weight_decay=decay)
    raise ValueError(f"no optimiser is called {recipe.optimiser!r}")


def make_schedule(recipe: Recipe, optimiser: optim.Optimizer, slices: int) -> LRScheduler:
    """Return what changes the rate of a run on this many slices; see `Recipe`.

    It steps after every optimiser step; that of ``"plateau"`` after every validation, with
    a value that grows as the network gets better.
    """
    steps = recipe.length(slices)
    if recipe.schedule == "plateau":
        least = recipe.min_rate
        return ReduceLROnPlateau(optimiser, "max", 0.1, recipe.plateau, threshold=0.0, min_lr=least)
    if recipe.schedule == "one-cycle":
        return OneCycleLR(optimiser, [group["lr"] for group in optimiser.param_groups], steps, pct_start=0.15)
    if recipe.schedule == "step":
        every, share = recipe.drop_steps(slices), recipe.min_rate / recipe.learning_rate
        return LambdaLR(optimiser, lambda step: max(0.1 ** (step // every), share))
    if recipe.schedule == "poly":
        return LambdaLR(optimiser, lambda step: max(0.0, 1 - step / steps) ** 0.9)
    return LambdaLR(optimiser, lambda step: 1.0)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights, and running statistics, towards those of the network, in place.

    Parameters
    ----------
    average, network : Module
        Of the same architecture.
    decay : float
        Share of the average that stays, 0 to 1.
    """
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)  # a count of batches


@dataclass(frozen=True)
class Agreement:
    """How far bfloat16 is from float32 on one batch.

    Attributes
    ----------
    loss : float
        Relative difference of the losses.
    cosine : float
        Of the angle between the gradients of all parameters; 1 where they point the same way.
    """

    loss: float
    cosine: float

    @property
    def good(self) -> bool:
        """Whether a step in bfloat16 does what one in float32 would: 1 % of the loss, cosine 0.95."""
        return self.loss <= _LOSS and self.cosine >= _COSINE  # false for NaN


def compare_precisions(network: nn.Module, loss: Loss, images: Tensor, masks: Tensor) -> Agreement:
    """Take the loss and gradients of one batch in float32 and in bfloat16; the network stays as it is.

    Parameters
    ----------
    network : Module
        With the weights that count.
    loss : Loss
    images, masks : Tensor
        A batch, where the network is.
    """
    values, gradients = [], []
    for half in (False, True):
        copied = copy.deepcopy(network).train()
        copied.zero_grad()
        for module in copied.modules():
            if isinstance(module, nn.Dropout):  # it would drop others in bfloat16
                module.eval()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            logits = copied(images)
        value = loss(logits, masks)
        value.backward()
        values.append(float(value.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in copied.parameters() if p.grad is not None]))
    cosine = nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)
    return Agreement(abs(values[1] - values[0]) / max(abs(values[0]), 1e-6), float(cosine))


def has_dropout(network: nn.Module) -> bool:
    """Whether the network has dropout."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())


@torch.no_grad()
def recompute_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Recompute the running statistics of batch normalisation, with dropout off, in place.

    Dropout widens the spread of what the next normalisation sees, in training only, so that its
    running variance is too large for a network in use: RD-UNet (Amer 2021), with a probability of
    one half in each unit, then misses lesions that it knows. The weights stay as they are.

    Parameters
    ----------
    network : Module
        Left in evaluation mode.
    batches : iterable of Tensor, shape (n, 1, h, w)
        Training slices, where the network is; each batch counts alike.
    """
    network.eval()
    normalisations = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [module.momentum for module in normalisations]
    for module in normalisations:
        module.reset_running_stats()
        module.momentum = None  # a plain mean
        module.train()
    for images in batches:
        heads(network, images)
    for module, momentum in zip(normalisations, usual, strict=True):
        module.momentum = momentum
        module.eval()


def matching_weights(network: nn.Module, path: str | Path) -> dict[str, Tensor]:
    """Return the weights of a model file whose names and shapes are those of a network's own.

    Raises
    ------
    ModelError
        If the file is no model, or nothing in it agrees.
    """
    trained, _ = load_network(path)
    own = network.state_dict()
    taken = {
        name: value.to(own[name].dtype)
        for name, value in trained.state_dict().items()
        if name in own and value.shape == own[name].shape
    }
    if not any(value.dim() > 1 for value in taken.values()):
        raise ModelError(
            f"No layer of {path} has the name and shape of one of this network: start without it."
        )
    return taken


def matching_share(network: nn.Module, path: str | Path) -> float:
    """Return how much of a network's parameters such a start gives, from 0 to 1."""
    taken = matching_weights(network, path)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return sum(size for name, size in sizes.items() if name in taken) / sum(sizes.values())
