"""How long each network of the catalogue takes for a slice, against the bare U-Net of Amer 2021.

    python benchmarks/network_times.py [NAME ...] [--device auto] [--rounds 15] [--threads N] [--record]

Each network runs as the product runs it: normalisation folded in, channels last, four slices of
256x256, on a CPU each in a worker with its share of the cores, with random weights, on which time
does not depend. The default model runs as it
is used, with the second look at the lungs that its card asks for, over slices from all of a phantom
chest. All are timed in turn, round after round in one process; a large network only every third
round. Its ratio is the median over the rounds of its time to the U-Net's in the same round, so that
a machine that slows down slows both. Exit code 1 if the default model's is above its goal.

With ``--record`` the figures go into `network_times.json` beside this file, from which
`docs/make_results.py` reads them, in the place of earlier ones of the same device.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import DEFAULT, find
from napari_covseg.models.file import Model, choose_device, load_model, model_bytes
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network
from napari_covseg.networks.catalogue import BY_NAME, CATALOGUE, NetworkEntry
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.slices import Workers, default_batch
from phantom_generator import phantom

RECORD = Path(__file__).with_suffix(".json")
AGAINST = "amer2021-unet"
GOAL = 1.6
SIZE, BATCH = 256, 4
LARGE, EVERY = 6.0, 3  # GMAC from which a network is timed in every third round only
OUTPUTS = ("lungs", "lesion")


@dataclass
class Timed:
    """One of those that are timed.

    Attributes
    ----------
    once : callable
        Does it once.
    slices : int
        How many slices that are.
    every : int
        It takes part in every round, or in every third.
    seconds : dict of int to float
        Of each round, per slice.
    """

    once: Callable[[], None]
    slices: int
    every: int = 1
    seconds: dict[int, float] = field(default_factory=dict)

    def ratio(self, base: Timed) -> float:
        """Return the median ratio to another one, of the rounds that both took part in."""
        return statistics.median(self.seconds[r] / base.seconds[r] for r in self.seconds)

    @property
    def milliseconds(self) -> float:
        """Median time of a slice."""
        return 1e3 * statistics.median(self.seconds.values())


def chest(preparation: Preparation) -> list[np.ndarray]:
    """Return prepared slices of a phantom, from one end of its lungs to the other."""
    made = phantom(seed=0, shape=(24, SIZE, SIZE), spacing=(12.5, 1.4, 1.4), lesions=True)
    return [preparation(made.scan.voxels[z]) for z in np.flatnonzero(made.lungs.any((1, 2)))]


def as_used(entry: NetworkEntry, device: str) -> Model:
    """Return a network of the catalogue with random weights, loaded as a model file is."""
    torch.manual_seed(0)
    network = build_network(entry.network, OUTPUTS, entry.settings)
    card = ModelCard(
        id=entry.name,
        title=entry.title,
        summary="",
        network={"name": entry.network, "settings": entry.settings},
        preparation=Preparation(size=SIZE).to_card(),
        outputs=OUTPUTS,
        thresholds=dict.fromkeys(OUTPUTS, 0.5),
    )
    return load_model(model_bytes(network, card), device, entry.name)


def bare(model: Model, images: Sequence[np.ndarray], workers: Workers) -> Callable[[], None]:
    """Return one pass of the network alone over some slices."""
    slices = torch.from_numpy(np.stack(images)).to(model.device).unsqueeze(1).float().div_(255.0)
    slices = slices.contiguous(memory_format=torch.channels_last)
    parts = slices.split(min(BATCH, default_batch(model.device)))
    return in_workers(model.network, parts, workers)


def whole(model: Model, images: Sequence[np.ndarray], workers: Workers) -> Callable[[], None]:
    """Return what a model says of slices, with the test-time augmentation of its card."""
    ensemble = Ensemble((model,))
    size = min(BATCH, default_batch(model.device))
    parts = [list(images[z : z + size]) for z in range(0, len(images), size)]

    def work(part: list[np.ndarray]) -> None:
        said: list[Tensor] = list(ensemble.opinions(model, part))
        torch.stack(said).mean(0)

    return in_workers(work, parts, workers)


def in_workers(work: Callable[[Any], object], parts: Sequence[Any], workers: Workers) -> Callable[[], None]:
    """Return the work on all parts, as many side by side as there are workers."""

    @torch.inference_mode()
    def one(part: Any) -> None:
        with workers.turn():
            work(part)

    def once() -> None:
        for done in [workers.submit(partial(one, part)) for part in parts]:
            done.result()

    return once


def time_all(chosen: Sequence[Timed], rounds: int, device: torch.device) -> None:
    """Time all in turn, round after round; round 0 warms up and does not count."""
    for number in range(rounds + 1):
        for one in chosen:
            if number and (number - 1) % one.every:
                continue
            begun = time.perf_counter()
            one.once()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                one.seconds[number] = (time.perf_counter() - begun) / one.slices
        print(f"round {number} of {rounds}", end="\r", file=sys.stderr, flush=True)


def told(timed: dict[str, Timed], device: torch.device, rounds: int) -> dict[str, Any]:
    """Return the figures as they are recorded."""
    base = timed[AGAINST]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return {
        "device": name,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
        "size": SIZE,
        "batch": BATCH,
        "rounds": rounds,
        "against": AGAINST,
        "networks": {
            key: {"ms": round(one.milliseconds, 3), "ratio": round(one.ratio(base), 3)}
            for key, one in timed.items()
        },
    }


def keep(figures: dict[str, Any]) -> None:
    """Write the figures into the record, beside those of other devices."""
    kept = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else []
    others = [one for one in kept if one["device"] != figures["device"]]
    RECORD.write_text(json.dumps([*others, figures], indent=1) + "\n", encoding="utf-8")
    print(f"written into {RECORD.name}")


def main() -> None:
    """Time, print the table, and say whether the goal is reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="networks of the catalogue; all by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--record", action="store_true", help="write the figures into network_times.json")
    arguments = parser.parse_args()
    if arguments.record and arguments.names:
        parser.error("--record keeps a run of all networks: name none")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    entries = [BY_NAME[name] for name in arguments.names] or list(CATALOGUE)
    default = load_model(find(DEFAULT).path, str(device))
    images = chest(default.preparation)
    some = images[2 * BATCH : 3 * BATCH]
    with Workers(device) as workers:
        # the default model comes right after what it is measured against
        timed = {AGAINST: Timed(bare(as_used(BY_NAME[AGAINST], str(device)), some, workers), BATCH)}
        timed[DEFAULT] = Timed(whole(default, images, workers), len(images))
        for entry in entries:
            if entry.name != AGAINST:
                once = bare(as_used(entry, str(device)), some, workers)
                timed[entry.name] = Timed(once, BATCH, EVERY if entry.gmac >= LARGE else 1)
        time_all(list(timed.values()), arguments.rounds, device)
    figures = told(timed, device, arguments.rounds)
    print(f"{figures['device']}, {figures['threads']} threads, medians of {arguments.rounds} rounds\n")
    print(f"{'network':34} {'ms per slice':>12} {'ratio':>7}")
    for name, one in figures["networks"].items():
        print(f"{name:34} {one['ms']:12.1f} {one['ratio']:7.2f}")
    ratio = figures["networks"][DEFAULT]["ratio"]
    missed = ratio > GOAL
    way = f"{DEFAULT} ({default.card.tta}) / {AGAINST}"
    print(f"\n{way}  {ratio:.2f}  <= {GOAL}" + ("  MISSED" if missed else ""))
    if arguments.record:
        keep(figures)
    sys.exit(missed)


if __name__ == "__main__":
    main()
