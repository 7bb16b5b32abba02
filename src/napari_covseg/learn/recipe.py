"""How a network is trained: settings read from one TOML file per paper, without loading torch."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from napari_covseg.errors import ModelError
from napari_covseg.labels import MANIFESTATIONS, NAMES, Task
from napari_covseg.networks.catalogue import CATALOGUE, CLASSIFIERS, NetworkEntry

if TYPE_CHECKING:
    from pydantic import TypeAdapter

OURS = "covseg"
"""The recipe that is taken where none is named."""
STAGED = ("chsnet",)
"""Networks whose parts can be trained one after the other."""
WHOLE = frozenset(entry.network for entry in CLASSIFIERS)
"""Networks that do not label pixels but name what a whole slice shows."""
RECOGNITION = (
    "name", "title", "paper", "notes", "network", "settings", "outputs", "pretrained", "preparation", "loss",
    "optimiser", "learning_rate", "weight_decay", "momentum", "steps", "epochs", "batch", "sampling",
    "balance", "selection", "seed",
)  # fmt: skip
"""Settings that a recipe for recognition or manifestations may have, see `learn.recognition`."""
WORDS = ("title", "paper", "notes")
"""Settings that decide nothing."""

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Probability = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run; written into the model's card.

    The defaults leave out whatever a paper does not mention. An epoch is one pass over the
    training slices: their count divided by `batch`, without a last batch that is not full
    (of one slice it would have no variance to normalise by).

    Attributes
    ----------
    name, title, paper : str
        Of the network; the name is that in `networks.catalogue`, or ``"covseg"``.
    network, settings : str, dict
        For `networks.build.build_network`.
    outputs : tuple of str
        What is taught, of `labels.NAMES`; the union of ground-glass and consolidation is taught with
        them where both are.
    pretrained : str
        ``"imagenet"`` begins with such weights in the network's body; by default with random ones.
    warm_start : str
        A model file, whose layers are taken where their names and shapes agree with the network's own;
        the others begin as without it.
    preparation : dict
        Settings of `models.preparation.Preparation` that differ from its defaults; `size`
        is what training slices are resized to, and ``crop = "lungs"`` needs a model that finds
        the lungs (`learn.train_model`).
    loss : str
        See `learn.loss`. ``"ce"``, the cross-entropy of two exclusive classes per output, is
        ``"bce"`` of their difference in logits, and is computed as that.
    heads : dict of str to float
        Weight of each head's loss, which are added; empty: the mean over all heads (deep
        supervision included).
    optimiser : str
        ``"lbfgs"`` finds the best last layer on a body that stays as it is, by at most `steps` iterations
        over all slices at once, `weight_decay` being the penalty of its squared weights for features that
        have a deviation of 1: logistic regression.
    learning_rate, weight_decay : float
        The rate is the first one, or the peak of the one-cycle schedule.
    body_rate : float
        Rate of the encoder as a share of that: a body that has learned before changes less.
    momentum : float
        Of ``"sgd"``.
    clip : float
        Largest norm of the gradients; 0 does not clip.
    schedule : str
        ``"one-cycle"``, ``"step"`` (a tenth every `drop_every` epochs, not below `min_rate`),
        ``"poly"`` (power 0.9), ``"plateau"`` (a tenth after `plateau` validations without
        a better one, not below `min_rate`), ``"constant"``.
    drop_every, min_rate, plateau : int, float, int
    epochs, steps : int, optional
        Length: `steps`, or else `epochs`.
    batch : int
        Slices per step.
    sampling : str
        ``"shuffled"``: each slice once per epoch. ``"weighted"``: drawn by patient, see
        `balance` and `negatives`.
    balance : float
        Exponent of a patient's slice count in its sampling weight (1: every slice alike,
        0: every patient alike).
    negatives : float
        Share of slices from sources without lungs.
    slab : float
        Share of slices that are averaged with up to three neighbours on either side, as in a
        scan of thick slices: vessels turn into streaks and blurs that are no ground-glass.
    stages : tuple of (float, int)
        (share of the steps done, crop size in pixels): small crops first, whole slices last.
        A crop costs in proportion to its area and still holds most of the lungs. Empty:
        whole slices.
    phases : tuple of (float, str)
        (share of the steps done, output): which part of a network of several is learned until then, one
        after the other, see `networks.punn2022.CHSNet`. A phase begins with what validated best in the one
        before, and with a new optimiser and the first rate; only the last may end early. Empty: all parts at
        once.
    augmentation : str
        See `learn.augment`.
    average : float
        Decay of the moving average of the weights, which is then what is validated and kept;
        0 keeps the weights themselves.
    selection : str
        What is kept: the weights with the best validation Dice (mean over the outputs), with
        the least validation loss, or the last.
    patience : int
        Validations without a better one after which the run ends; 0 never ends it early.
    validate_every : int, optional
        Steps from one validation, and checkpoint, to the next; by default an epoch.
    threshold : float, dict of str to float, or "scan"
        Probability from which a pixel is a lesion, or of each output that is named; of the others, and of
        the lungs, it is 0.5. ``"scan"`` chooses
        all among 0.05, 0.10 … 0.95 by the Dice on the validation patients.
    tta : str
        The test-time augmentation that the model is used with, see `models.card.ModelCard`;
        nothing is trained or validated with it.
    min_pixels : int
        A slice with fewer predicted lesion pixels is taken to have none.
    seed : int
    notes : str
        What the paper leaves open, and what was chosen.
    """

    name: str
    network: str
    title: str = ""
    paper: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("lungs", "lesion")
    pretrained: Literal["", "imagenet"] = ""
    warm_start: str = ""
    preparation: dict[str, Any] = field(default_factory=dict)
    loss: Literal["dice", "bce", "ce", "bce_dice", "bce_dice_shown", "bce_dice_squared"] = "bce_dice"
    heads: dict[str, float] = field(default_factory=dict)
    optimiser: Literal["adamw", "adam", "sgd", "lbfgs"] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    body_rate: Positive = 1.0
    momentum: Share = 0.9
    clip: NotNegative = 0.0
    schedule: Literal["constant", "one-cycle", "step", "poly", "plateau"] = "constant"
    drop_every: Count = 20
    min_rate: Positive = 1e-6
    plateau: Annotated[int, Ge(0)] = 5
    epochs: Count | None = None
    steps: Count | None = None
    batch: Count = 8
    sampling: Literal["shuffled", "weighted"] = "shuffled"
    balance: float = 1.0
    negatives: Share = 0.0
    slab: Share = 0.0
    stages: tuple[tuple[float, int], ...] = ()
    phases: tuple[tuple[float, str], ...] = ()
    augmentation: Literal["none", "flips-zoom", "affine", "covseg", "guises"] = "none"
    average: Share = 0.0
    selection: Literal["dice", "loss", "last"] = "dice"
    patience: Annotated[int, Ge(0)] = 0
    validate_every: Count | None = None
    threshold: Probability | dict[str, Probability] | Literal["scan"] = 0.5
    tta: Literal["none", "lungs", "flip", "flips"] = "none"
    min_pixels: Annotated[int, Ge(0)] = 0
    seed: int = 0
    notes: str = ""

    __pydantic_config__ = {"strict": True, "allow_inf_nan": False}  # noqa: RUF012 - not a field

    @property
    def task(self) -> Task:
        """What its network is for."""
        if self.network not in WHOLE:
            return "segmentation"
        return "manifestations" if set(self.outputs) <= set(MANIFESTATIONS) else "recognition"

    @property
    def size(self) -> int:
        """Height and width of a prepared slice in pixels."""
        return int(self.preparation.get("size", 256))

    def decisive(self) -> dict[str, Any]:
        """Return the settings that decide about the weights: all but words."""
        values = {key: value for key, value in asdict(self).items() if key not in WORDS}
        return values | {"warm_start": Path(self.warm_start).name}  # its folder may be moved

    def epoch(self, slices: int) -> int:
        """Return the steps of one pass over this many slices."""
        return max(1, slices // self.batch)

    def length(self, slices: int) -> int:
        """Return the optimiser steps of the run on this many training slices."""
        return self.steps if self.steps is not None else (self.epochs or 1) * self.epoch(slices)

    def drop_steps(self, slices: int) -> int:
        """Return the steps between two drops of the ``"step"`` schedule.

        A short run spends as long at each rate; what it leaves out first is the tail at
        `min_rate`, which is most of a long one.
        """
        rates = 1 + math.ceil(math.log10(self.learning_rate / self.min_rate) - 1e-9)
        return max(1, min(self.drop_every * self.epoch(slices), self.length(slices) // rates))

    def phase(self, step: int, steps: int) -> tuple[int, int, str]:
        """Return the phase of a step: its first step, the one after its last, and what is learned."""
        first = 0
        for share, part in self.phases:
            if step < (end := round(share * steps)):
                return first, end, part
            first = end
        return 0, steps, ""

    def shortened(self, steps: int) -> Recipe:
        """Return the same recipe for this many steps, validated ten times on the way.

        Schedules, stages and phases are shares of the length and shrink with it. A short run does
        not end early, but still keeps what validated best.
        """
        return replace(
            self, steps=steps, validate_every=-(-steps // 10), patience=0, plateau=min(self.plateau, 1)
        )

    def at_size(self, size: int) -> Recipe:
        """Return the same recipe for slices of `size` pixels; crops shrink with them."""
        stages = tuple(
            (share, size if crop == self.size else max(16, round(crop * size / self.size / 16) * 16))
            for share, crop in self.stages
        )
        settings = self.settings | ({"size": size} if "size" in self.settings else {})
        preparation = {**self.preparation, "size": size}
        return replace(self, preparation=preparation, settings=settings, stages=stages)


def recipe_names(task: Task = "segmentation") -> tuple[str, ...]:
    """Return the names of all recipes for a task, our own first."""
    names = [name for name, recipe in _recipes().items() if recipe.task == task]
    return tuple(sorted(names, key=lambda name: (name != OURS, name)))


def read_recipe(name: str = OURS, task: Task = "segmentation") -> Recipe:
    """Return the recipe called `name`, or the one in the file of that name, which ends in ``.toml``.

    Raises
    ------
    ModelError
        If there is none of that name, or it is for another task, or the file cannot be read or holds not
        just one.
    """
    if not name.endswith(".toml") and name not in _recipes():
        raise ModelError(f"There is no recipe called {name!r}: known are {', '.join(recipe_names(task))}.")
    recipe = _in_file(Path(name)) if name.endswith(".toml") else _recipes()[name]
    if recipe.task != task:
        raise ModelError(
            f"The recipe {name} is for {recipe.task}, not for {task}: choose one of "
            f"{', '.join(recipe_names(task))}."
        )
    return recipe


def _in_file(path: Path) -> Recipe:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The recipe {path} cannot be read ({error}): choose another file.") from error
    recipes = list(parse_recipes(text, path.name).values())
    if len(recipes) != 1:
        raise ModelError(f"{path} holds {len(recipes)} recipes: leave one table in it, [NAME].")
    return recipes[0]


@cache
def _recipes() -> dict[str, Recipe]:
    found: dict[str, Recipe] = {}
    for file in files(__package__).joinpath("recipes").iterdir():
        paper = file.name.removesuffix(".toml")
        entries = [entry for entry in CATALOGUE if entry.name.startswith(f"{paper}-")]
        if paper != file.name:
            found |= parse_recipes(file.read_text(encoding="utf-8"), file.name, entries)
    return found


def parse_recipes(
    text: str, source: str = "the recipe", entries: Iterable[NetworkEntry] = ()
) -> dict[str, Recipe]:
    """Read the recipes in a TOML text: settings for all networks, and tables of single ones.

    Parameters
    ----------
    text : str
        What stands before the first table is for all networks; a table called as a network
        changes or adds to it.
    source : str
        What errors call the text.
    entries : iterable of NetworkEntry
        Networks of the catalogue, each of which gets a recipe; a table of another name must
        say which network it means.

    Raises
    ------
    ModelError
        If it is no TOML, or a setting is not known or cannot have its value.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{source} is not valid TOML: {error}.") from error
    tables = {f.name for f in fields(Recipe) if f.default_factory is dict}
    common = {key: value for key, value in content.items() if key in tables or not isinstance(value, dict)}
    known = {
        entry.name: {key: getattr(entry, key) for key in ("network", "title", "paper", "settings")}
        for entry in entries
    }
    recipes = {}
    for name in {**known, **content}.keys() - common.keys():
        values = {**known.get(name, {}), **common, **content.get(name, {})}
        recipes[name] = _recipe(name, values, f"{source}, {name}")
    return recipes


def _recipe(name: str, values: dict[str, Any], source: str) -> Recipe:
    """Build one recipe, or say which of its settings cannot be."""
    known = {f.name for f in fields(Recipe)} - {"name"}
    if unknown := sorted(values.keys() - known):
        raise ModelError(f"{source}: there is no setting {unknown[0]}; known are {', '.join(sorted(known))}.")
    if "network" not in values:
        raise ModelError(f"{source}: it names no network, and there is none of its name.")
    from pydantic import ValidationError  # half a second, which the shell's help need not wait for

    try:
        # as JSON, which has arrays where Python has tuples
        recipe: Recipe = _schema().validate_json(json.dumps({"name": name, **values}, default=str))
    except ValidationError as error:
        found = error.errors()
        key = str(found[0]["loc"][0])
        wrong = " or ".join(one["msg"].removeprefix("Input ") for one in found if one["loc"][0] == key)
        wrong = wrong.replace("Field required", "has a value too few")
        raise ModelError(f"{source}: {key} = {values[key]!r} cannot be used, it {wrong}.") from error
    if wrong := _contradiction(recipe):
        raise ModelError(f"{source}: {wrong}.")
    return recipe


@cache
def _schema() -> TypeAdapter[Recipe]:
    from pydantic import TypeAdapter

    return TypeAdapter(Recipe)


def _contradiction(recipe: Recipe) -> str:
    """Say what cannot be about settings that are right one by one; empty if nothing."""
    outputs, known = set(recipe.outputs), NAMES[recipe.task]
    if not outputs or outputs - set(known) or len(outputs) < len(recipe.outputs):
        return f"outputs = {recipe.outputs} are not distinct ones of {', '.join(known)}"
    if recipe.epochs is None and recipe.steps is None:
        return "it has neither epochs nor steps"
    if recipe.task == "segmentation" and recipe.optimiser == "lbfgs":
        return "optimiser = 'lbfgs' is for a last layer alone, not for segmentation"
    if recipe.task != "segmentation":
        plain = asdict(Recipe(recipe.name, recipe.network))
        if without_use := [
            key for key, value in asdict(recipe).items() if value != plain[key] and key not in RECOGNITION
        ]:
            return f"{without_use[0]} is of no use for {recipe.task}"
        if recipe.task == "manifestations" and recipe.loss != "bce":
            return 'a recipe for manifestations has loss = "bce"'
        if recipe.task == "recognition" and (recipe.loss != "ce" or len(outputs) < 2):
            return 'a recipe for recognition has loss = "ce" and at least two outputs'
    shares = [share for share, _ in recipe.stages]
    if shares != sorted(set(shares)):
        return f"the shares of stages = {recipe.stages} do not rise"
    if recipe.phases:
        shares = [share for share, _ in recipe.phases]
        if shares != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1:
            return f"the shares of phases = {recipe.phases} do not rise from above 0 to 1"
        if recipe.network not in STAGED or {part for _, part in recipe.phases} - outputs:
            return f"phases = {recipe.phases} are not outputs of a network in parts ({', '.join(STAGED)})"
    return ""
