"""The optimisers and learning-rate schedules of the recipes, torch's own."""

from __future__ import annotations

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from napari_covseg.learn.recipe import Recipe


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
    return optim.Adam(parameters, rate, weight_decay=decay)


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
