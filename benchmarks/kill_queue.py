"""Kill the queue of trainings at random moments, and see that the training does not notice.

    python benchmarks/kill_queue.py [--kills 10] [--steps 200] [--recipe NAME] [--seed 0]

A small training on made-up pictures runs in the queue once undisturbed, then once with ``kill -9``
of the queue, of the training process, or of both. Every loss has to be the same, bit by bit,
also those that were computed again after a kill, and so have the weights in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training_queue import Folder

QUEUE = Path(__file__).with_name("training_queue.py")
PATIENCE = 600.0  # seconds without a step
NAME = "killed"
TABLE = """
[[training]]
name = "{name}"
command = [
    "train", "{data}", "--recipe", "{recipe}", "--size", "32", "--batch", "2",
    "--steps", "{steps}", "--validation", "b", "--seed", "{seed}",
]
"""


def main() -> None:
    """Print a line for each kill, and what was compared."""
    parser = argparse.ArgumentParser(description="Kill the queue of trainings at random moments.")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--recipe", default="amer2021-unet-256")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["COVSEG_DATA"] = tempfile.gettempdir()  # nothing is read from it
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        make_pictures(data, given.seed)
        undisturbed, killed = Path(temporary) / "undisturbed", Path(temporary) / "killed"
        filled = TABLE.format(name=NAME, data=data, recipe=given.recipe, steps=given.steps, seed=given.seed)
        for place in (undisturbed, killed):
            (place / "benchmarks").mkdir(parents=True)
            (place / "benchmarks" / "training_queue.toml").write_text(filled)
        begun, chance = time.monotonic(), random.Random(given.seed)
        moments = sorted(chance.sample(range(2, given.steps), given.kills))
        try:
            run(undisturbed, [], chance)
            print(f"undisturbed: {given.steps} steps in {time.monotonic() - begun:.0f} s", flush=True)
            run(killed, moments, chance)
        finally:  # also when it is interrupted: nothing is left running
            for place in (undisturbed, killed):
                kill(Folder(place / "trained-weights"), "queue")
        right, seen = losses(undisturbed), losses(killed)
        expected = dict(right)
        wrong = [step for step, loss in seen if expected[step] != loss]
        again = len(seen) - len({step for step, _ in seen})
        same = weights(undisturbed) == weights(killed)
        print(f"{given.kills} kills: {len(seen)} losses, {again} of them computed again, {len(wrong)} differ")
        print(f"weights: {'the same, bit by bit' if same else 'they differ'}")
        if wrong or not same or {step for step, _ in seen} != set(range(1, given.steps + 1)):
            raise SystemExit(f"Something was lost; the first steps that differ: {wrong[:5]}")


def run(place: Path, kills: list[int], chance: random.Random) -> None:
    """Let the queue in a folder finish its training, killed when that first reaches these steps."""
    python = place / "python"  # a training process that writes down its losses
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" --trains "{place / "losses"}" "$@"\n')
    python.chmod(0o755)
    start = [sys.executable, str(QUEUE), "start", f"--checkout={place}", f"--python={python}"]
    start += ["--nice=1", "--cores=1"]
    folder = place / "trained-weights"
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
    moved = time.monotonic()
    while (state := read(folder / f"{NAME}.run.json").get("state")) != "done":
        step = max((step for step, _ in losses(place)), default=0)
        if kills and step >= kills[0]:
            kills.pop(0)
            who = chance.choice(["queue", "training", "both"])
            kill(Folder(folder), who)
            print(f"step {step}: killed {who}", flush=True)
            subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
            moved = time.monotonic()
        if state == "failed" or time.monotonic() - moved > PATIENCE:
            raise SystemExit((folder / f"{NAME}.log").read_text())
        time.sleep(0.02)


def kill(folder: Folder, who: str) -> None:
    """Kill what a running queue says that it is, and wait until the queue is gone if it was killed."""
    at = folder.queue()
    for process in {"queue": ["pid"], "training": ["child"], "both": ["pid", "child"]}[who]:
        if at.get(process):  # there may be no training process just now
            with contextlib.suppress(ProcessLookupError):
                os.kill(at[process], signal.SIGKILL)
    while who != "training" and folder.queue():
        time.sleep(0.02)


def trains(path: Path, words: list[str]) -> None:
    """Be the training process: `covseg` with every loss appended to a file."""
    from napari_covseg.cli import app
    from napari_covseg.learn.train import TrainingRun

    update = TrainingRun.update

    def told(self: TrainingRun, *given: Any) -> float:
        loss = update(self, *given)
        with path.open("a") as file:
            file.write(f"{self.step} {loss.hex()}\n")
        return loss

    TrainingRun.update = told  # type: ignore[assignment, method-assign]
    app(words, prog_name="covseg")


def read(path: Path) -> dict[str, Any]:
    """Return a table; empty if it is not there."""
    values: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return values


def losses(place: Path) -> list[tuple[int, str]]:
    """Return steps and losses in the order in which they were computed."""
    path = place / "losses"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []  # the last may not be whole
    pairs = [line.split() for line in lines]
    return [(int(step), loss) for step, loss in pairs]


def weights(place: Path) -> bytes:
    """Return the tensors of the model that was trained; its card says how long it took."""
    data = (place / "trained-weights" / f"{NAME}.safetensors").read_bytes()
    return data[8 + struct.unpack("<Q", data[:8])[0] :]


def make_pictures(folder: Path, seed: int) -> None:
    """Write two patients with lungs and a lesion."""
    chance = np.random.default_rng(seed)
    for patient, number in (("a", 8), ("b", 2)):
        for i in range(number):
            lungs, lesion = np.zeros((2, 64, 64), np.uint8)
            lungs[16:48, 8:28] = lungs[16:48, 36:56] = 255
            lesion[20:30, 10 + i : 18 + i] = 255
            ct = chance.integers(60, 255, (64, 64), dtype=np.uint8)
            ct[lungs > 0] //= 3
            ct[lesion > 0] = 200
            for kind, picture in (("ct", ct), ("lungs", lungs), ("infection", lesion)):
                (folder / patient / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(folder / patient / kind / f"{i:04d}.png")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trains"]:
        trains(Path(sys.argv[2]), sys.argv[5:])  # after -m napari_covseg.cli
    else:
        main()
