"""Whether each network of the catalogue can learn four phantom slices by heart.

    python benchmarks/overfit.py [NAME ...] [--size 64] [--steps 400] [--device auto]

Trains each on the same four slices, lungs and lesions, with Adam and binary cross-entropy plus
Dice on every head, until the lesion Dice of what it answers (not of what it trains with) is
above 0.9, and prints a row for each. Dropout is off: it is there to prevent just this. Ends
with an error if one of them does not get there.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from torch import Tensor, nn

from napari_covseg.learn.corrections import targets_of
from napari_covseg.learn.loss import segmentation_loss
from napari_covseg.learn.regression import shipped_phantom
from napari_covseg.models.file import choose_device
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network
from napari_covseg.networks.catalogue import BY_NAME, CATALOGUE

OUTPUTS = ("lungs", "lesion")
ENOUGH = 0.9
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


def overfit(network: nn.Module, images: Tensor, targets: Tensor, steps: int) -> tuple[int, float]:
    """Train until it is enough; returns the steps taken and the lesion Dice."""
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    truths = {name: targets[:, i : i + 1] for i, name in enumerate(OUTPUTS)}
    dice = 0.0
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        losses = [
            segmentation_loss(logits, truths[head.split("@")[0]]) for head, logits in network(images).items()
        ]
        torch.stack(losses).sum().backward()
        optimiser.step()
        if step % 10 == 0 and (dice := lesion_dice(network, images, targets)) > ENOUGH:
            return step, dice
    return steps, dice


def main() -> None:
    """Print a row per network."""
    parser = argparse.ArgumentParser(description="Can each network learn four phantom slices by heart?")
    parser.add_argument("names", nargs="*", help="of the catalogue; all by default")
    parser.add_argument("--size", type=int, default=64, help="pixels per side")
    parser.add_argument("--steps", type=int, default=400, help="at most")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    images, targets = (one.to(device) for one in four_slices(arguments.size))
    print(f"{'network':<34} {'steps':>5} {'lesion Dice':>11} {'s':>7}")
    failed = []
    for entry in [BY_NAME[name] for name in arguments.names] or CATALOGUE:
        torch.manual_seed(0)
        network = build_network(entry.network, OUTPUTS, entry.settings).to(device).train()
        start = time.perf_counter()
        steps, dice = overfit(network, images, targets, arguments.steps)
        failed += [entry.name] if dice <= ENOUGH else []
        print(f"{entry.name:<34} {steps:>5} {dice:>11.3f} {time.perf_counter() - start:>7.1f}", flush=True)
    if failed:
        sys.exit(f"Did not learn four slices: {', '.join(failed)}")


if __name__ == "__main__":
    main()
