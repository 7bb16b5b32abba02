"""All that changes while a network is trained: one optimiser step, and what a checkpoint holds."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_covseg.errors import ModelError
from napari_covseg.learn.averaging import follow
from napari_covseg.learn.loss import Loss
from napari_covseg.learn.optimise import make_optimiser, make_schedule
from napari_covseg.learn.precision import WARM_UP, compare
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.training_set import TrainingSet
from napari_covseg.learn.warm_start import agreeing
from napari_covseg.networks.build import build_network
from napari_covseg.networks.efficientnet import load_imagenet

FORMAT = 2
"""Of a checkpoint."""
_PARTS = ("network", "average", "optimiser", "schedule")


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


class TrainingRun:
    """A network, its optimiser, and the best weights so far.

    Parameters
    ----------
    recipe : Recipe
    training, validation : TrainingSet
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
        training: TrainingSet,
        validation: TrainingSet | None,
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
            network.load_state_dict(agreeing(network, recipe.warm_start), strict=False)
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
            self._state["half"] = compare(self.network, self.loss, images, masks).good
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
            follow(self.average, self.network, min(self.recipe.average, self.step / (self.step + 9)))
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
        """Tell what validation found, the more the better; return whether it is the best so far."""
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
                "anew, or give its settings."
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
        f"The checkpoint {path} cannot be read ({_first_line(error)}): delete it to start anew."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
