"""What a setting of a recipe may be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args, get_origin

from napari_covseg.labels import OUTPUTS
from napari_covseg.models.card import TTA

if TYPE_CHECKING:
    from napari_covseg.learn.recipe import Recipe

CHOICES = {
    "loss": ("dice", "bce", "ce", "bce_dice", "bce_dice_squared"),
    "optimiser": ("adamw", "adam", "sgd"),
    "schedule": ("constant", "one-cycle", "step", "poly", "plateau"),
    "sampling": ("shuffled", "weighted"),
    "augmentation": ("none", "flips-zoom", "affine", "covseg", "guises"),
    "pretrained": ("", "imagenet"),
    "selection": ("dice", "loss", "last"),
    "threshold": ("scan",),
    "tta": TTA,
}
"""Words that a setting may be."""
_POSITIVE = (
    "learning_rate",
    "body_rate",
    "min_rate",
    "epochs",
    "steps",
    "batch",
    "drop_every",
    "validate_every",
)
STAGED = ("chsnet",)
"""Networks whose parts can be trained one after the other."""
_SHARES = ("average", "negatives", "slab", "momentum")


def fits(value: object, kind: Any) -> bool:
    """Tell whether a value from TOML can be a field of this type."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind in (int, str):
        return type(value) is kind
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(fits(v, get_args(kind)[1]) for v in value.values())
    if get_origin(kind) is tuple and get_args(kind)[0] is str:
        return isinstance(value, list) and all(type(one) is str for one in value)
    if get_origin(kind) is tuple:
        pairs, wanted = value if isinstance(value, list) else [value], get_args(get_args(kind)[0])
        return all(
            isinstance(pair, list) and len(pair) == 2 and all(map(fits, pair, wanted)) for pair in pairs
        )
    return kind is Any or any(fits(value, one) for one in get_args(kind) if one is not type(None))


def problem(recipe: Recipe) -> str:
    """Say what cannot be about the values of a recipe; empty if nothing."""
    for key, words in CHOICES.items():
        value = getattr(recipe, key)
        if isinstance(value, str) and value not in words:
            return f"{key} = {value!r} is not known; it can be {', '.join(words)}"
    if (
        not recipe.outputs
        or set(recipe.outputs) - set(OUTPUTS)
        or len({*recipe.outputs}) < len(recipe.outputs)
    ):
        return f"outputs = {recipe.outputs} are not distinct ones of {', '.join(OUTPUTS)}"
    for key in _POSITIVE:
        if (value := getattr(recipe, key)) is not None and value <= 0:
            return f"{key} = {value} is not above 0"
    for key in _SHARES:
        if not 0 <= getattr(recipe, key) < 1:
            return f"{key} = {getattr(recipe, key)} is not from 0 to below 1"
    if isinstance(recipe.threshold, float | int) and not 0 < recipe.threshold < 1:
        return f"threshold = {recipe.threshold} is not between 0 and 1"
    if min(recipe.patience, recipe.plateau, recipe.min_pixels, recipe.clip, recipe.weight_decay) < 0:
        return "patience, plateau, min_pixels, clip and weight_decay cannot be below 0"
    if recipe.epochs is None and recipe.steps is None:
        return "it has neither epochs nor steps"
    if recipe.stages and [share for share, _ in recipe.stages] != sorted({s for s, _ in recipe.stages}):
        return f"the shares of stages = {recipe.stages} do not rise"
    if recipe.phases:
        shares = [share for share, _ in recipe.phases]
        if shares != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1:
            return f"the shares of phases = {recipe.phases} do not rise from above 0 to 1"
        if recipe.network not in STAGED or {part for _, part in recipe.phases} - set(recipe.outputs):
            return f"phases = {recipe.phases} are not outputs of a network in parts ({', '.join(STAGED)})"
    return ""
