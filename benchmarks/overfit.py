"""Whether each network of the catalogue can learn four phantom slices by heart, or what sixteen are.

    python benchmarks/overfit.py [NAME ...] [--size 64] [--steps 400] [--device auto]

Trains each on the same four slices, lungs and lesions, with Adam and binary cross-entropy plus
Dice on every head, until the lesion Dice of what it answers (not of what it trains with) is
above 0.9, and prints a row for each. Dropout is off: it is there to prevent just this. Ends
with an error if one of them does not get there.

Networks that name what a slice shows learn sixteen slices, with cross-entropy, until each is named as
it was. The names are dealt out in turn: nothing but the slice itself tells which is its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.learn.corrections import targets_of
from napari_covseg.learn.loss import segmentation_loss
from napari_covseg.learn.regression import shipped_phantom
from napari_covseg.models.file import choose_device
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network
from napari_covseg.networks.catalogue import BY_NAME, CATALOGUE, CLASSIFIERS, NetworkEntry
from napari_covseg.networks.classifier import Classifier

OUTPUTS = ("lungs", "lesion")
ENOUGH = 0.9
"""Dice; of sixteen slices all have to be named as they were."""
SEED = 11


def four_slices(size: int) -> tuple[Tensor, Tensor]:
    """Return the four slices with the most lesion, (4, 1, size, size) and (4, 2, size, size)."""
    voxels, lungs, lesions = shipped_phantom(SEED)
    most = np.argsort([-np.count_nonzero(one) for one in lesions])[:4]
    prepare = Preparation(size=size)
    images = np.stack([prepare(voxels[i]) for i in most])[:, None]
    targets = np.stack([targets_of(lungs[i], lesions[i], OUTPUTS, size) for i in most])
    return torch.from_numpy(images).float() / 255, torch.from_numpy(targets).float()


def lesion_dice(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    """Return the Dice of the lesion answers, over all slices."""
    network.eval()
    with torch.inference_mode():
        found = network(images)["lesion"] > 0
    network.train()
    truth = targets[:, 1:] > 0
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def sixteen_slices(size: int) -> Tensor:
    """Return the slices of two phantoms, (16, 1, size, size)."""
    prepare = Preparation(size=size)
    voxels = [slice_ for seed in (SEED, SEED + 1) for slice_ in shipped_phantom(seed)[0]]
    return torch.from_numpy(np.stack([prepare(slice_) for slice_ in voxels])[:, None]).float() / 255


def dealt(outputs: Sequence[str], exclusive: bool) -> Tensor:
    """Return what each of sixteen slices is to be called, (16, len(outputs)): one name, or any of them."""
    numbers = torch.arange(16)[:, None]
    places = torch.arange(len(outputs))
    told = numbers % len(outputs) == places if exclusive else numbers >> places & 1
    return told.float()


def named(network: nn.Module, images: Tensor, truth: Tensor, exclusive: bool) -> float:
    """Return the share of slices that are named as they are to be."""
    network.eval()
    with torch.inference_mode():
        logits = torch.cat(list(network(images).values()), 1)
    network.train()
    right = logits.argmax(1) == truth.argmax(1) if exclusive else ((logits > 0) == (truth > 0)).all(1)
    return float(right.float().mean())


def naming_loss(network: nn.Module, images: Tensor, truth: Tensor, exclusive: bool) -> Tensor:
    """Return the cross-entropy of exclusive classes, or of each label, which are added."""
    logits = torch.cat(list(network(images).values()), 1)
    if exclusive:
        return F.cross_entropy(logits, truth)
    return F.binary_cross_entropy_with_logits(logits, truth) * truth.shape[1]


def labelling_loss(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return binary cross-entropy plus Dice, summed over the heads."""
    truths = {name: targets[:, i : i + 1] for i, name in enumerate(OUTPUTS)}
    heads = network(images)
    return torch.stack(
        [segmentation_loss(logits, truths[head.split("@")[0]]) for head, logits in heads.items()]
    ).sum()


def overfit(
    network: nn.Module,
    loss: Callable[[], Tensor],
    score: Callable[[], float],
    done: Callable[[float], bool],
    steps: int,
) -> tuple[int, float]:
    """Train until it is enough; returns the steps taken and the score."""
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    reached = 0.0
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        if step % 10 == 0 and done(reached := score()):
            return step, reached
    return steps, reached


def learn(entry: NetworkEntry, size: int, steps: int, device: torch.device) -> tuple[int, float, bool]:
    """Build a network and let it learn; returns steps, score, and whether that is enough."""
    torch.manual_seed(0)
    if not entry.classes:
        network = build_network(entry.network, OUTPUTS, entry.settings).to(device).train()
        images, targets = (one.to(device) for one in four_slices(size))
        work = (
            partial(labelling_loss, network, images, targets),
            partial(lesion_dice, network, images, targets),
        )
        taken, score = overfit(network, *work, lambda dice: dice > ENOUGH, steps)
        return taken, score, score > ENOUGH
    settings = entry.settings | ({"size": size} if "size" in entry.settings else {})
    network = build_network(entry.network, entry.classes, settings).to(device).train()
    assert isinstance(network, Classifier)
    exclusive = entry.task == "recognition"
    images = sixteen_slices(max(size, network.smallest)).to(device)
    given = images, dealt(entry.classes, exclusive).to(device), exclusive
    taken, score = overfit(
        network,
        partial(naming_loss, network, *given),
        partial(named, network, *given),
        lambda s: s == 1,
        steps,
    )
    return taken, score, score == 1


def main() -> None:
    """Print a row per network."""
    parser = argparse.ArgumentParser(description="Can each network learn a few phantom slices by heart?")
    parser.add_argument("names", nargs="*", help="of the catalogue; all by default")
    parser.add_argument("--size", type=int, default=64, help="pixels per side, or the least a network takes")
    parser.add_argument("--steps", type=int, default=400, help="at most")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    print(f"{'network':<34} {'steps':>5} {'Dice, or right':>14} {'s':>7}")
    failed = []
    for entry in [BY_NAME[name] for name in arguments.names] or (*CATALOGUE, *CLASSIFIERS):
        start = time.perf_counter()
        steps, score, enough = learn(entry, arguments.size, arguments.steps, device)
        failed += [] if enough else [entry.name]
        print(f"{entry.name:<34} {steps:>5} {score:>14.3f} {time.perf_counter() - start:>7.1f}", flush=True)
    if failed:
        sys.exit(f"Did not learn by heart: {', '.join(failed)}")


if __name__ == "__main__":
    main()
