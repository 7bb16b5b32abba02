"""From *Learn* to better labels in a real viewer, on a patient that the model has never seen.

    COVSEG_DATA=... python benchmarks/speed_learn.py [--patient coronacases_002] [--fold 2] [--repeats 5]

A fold model labels the patient's slices of 256 x 256; five of them, evenly spaced, are
corrected to the truth; *Learn* and, as soon as a version is proposed, *Keep* are clicked.
Prints the curve of the fine-tuning, the seconds until the slice on screen has its first new
labels, and the lesion Dice of the slices that are not corrected. Then the medians of
scrubbing while idle and while another fine-tuning runs, and of *Refine this slice* while
idle, while a fine-tuning and while a prediction runs. Needs a display.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.events import TrainingStep
from napari_covseg.metrics import dice
from napari_covseg.models.catalogue import find
from napari_covseg.scans import read_scan
from speed_viewer import Bench

CORRECTED = 5
STARTS, UNTIL_BETTER, SCRUBBING, REFINE = 2.0, 30.0, 1.25, 1.0  # seconds, seconds, ratio, seconds
LESION = 1
"""What a model that knows one kind of lesion labels."""


@dataclass
class Told:
    """What the fine-tuning said, and when."""

    begun: float = 0.0
    steps: list[tuple[float, TrainingStep]] = field(default_factory=list)

    def hear(self, step: TrainingStep) -> None:
        """Note a step down."""
        self.steps.append((time.perf_counter() - self.begun, step))

    def print(self) -> None:
        """Print the curve where the held-out slices were looked at."""
        print("  step  after Learn [s]  loss   Dice, held out")
        for seconds, step in self.steps:
            if step.held_out is not None:
                loss = "  –  " if step.loss is None else f"{step.loss:.3f}"
                print(f"  {step.step:4}  {seconds:15.1f}  {loss}  {step.held_out['lesion']:.3f}")


class Learner(Bench):
    """A viewer whose person knows the truth."""

    def __init__(self, workspace: str, model: Path, truth: np.ndarray) -> None:
        super().__init__(workspace, str(model))
        self.truth = truth
        self.workbench.learning.choose(find(str(model)), "auto")
        self.corrected: list[int] = []

    def correct(self, z: int) -> None:
        """Draw what is missing on a slice and erase what is too much."""
        here = self.session.case.live["lesions"][z]
        wanted = np.where(self.truth[z], np.uint8(LESION), np.uint8(0))
        y, x = np.nonzero(here != wanted)
        index = np.full(len(y), z), y, x
        self.session.layers.write("lesions", index, here[y, x], wanted[y, x], "brush")
        self.corrected.append(z)

    def dice(self) -> float:
        """Lesions of the slices that are not corrected."""
        rest = [z for z in range(len(self.truth)) if z not in self.corrected]
        return float(dice(self.session.case.live["lesions"][rest] > 0, self.truth[rest]))

    def learn(self, told: Told) -> None:
        """Click *Learn*."""
        told.begun = time.perf_counter()
        self.workbench.learning.stepped.connect(told.hear)
        self.workbench.learning.start(all_cases=False, seconds=UNTIL_BETTER)

    def stop(self) -> None:
        """Stop learning, and discard what it has proposed."""
        self.workbench.learning.cancel()
        self.until(lambda: not self.workbench.learning.running)
        self.workbench.learning.discard()

    def show(self, z: int) -> None:
        """Show a slice."""
        self.viewer.dims.set_current_step(0, z)

    def refine(self, z: int) -> float:
        """Scribble on a slice that was not corrected; return the seconds until it is labelled again."""
        self.show(z)
        case = self.session.case
        positive = self.truth[z] & (case.live["lesions"][z] == 0)
        negative = ~self.truth[z] & (case.live["lesions"][z] > 0)
        told: list[str] = []
        begun = time.perf_counter()
        model = self.workbench.learning.in_use
        self.workbench.refining.label_slice(model, z, LESION, positive, negative, told.append)
        self.until(lambda: bool(told))
        return time.perf_counter() - begun


def until_better(bench: Learner) -> tuple[float, float]:
    """Learn and keep; print the curve.

    Returns the seconds until it began, and until there were new labels on screen.
    """
    told = Told()
    changed: list[float] = []
    before = bench.dice()
    bench.show(bench.corrected[CORRECTED // 2] + 3)
    bench.learn(told)
    bench.until(lambda: not bench.workbench.learning.running)
    proposed = time.perf_counter() - told.begun
    told.print()
    proposal = bench.workbench.learning.proposal
    if proposal is None:
        raise SystemExit("no version was proposed")
    bench.session.slices_changed.connect(lambda _: changed.append(time.perf_counter() - told.begun))
    bench.workbench.learning.keep()
    bench.until(lambda: bool(changed))
    bench.until(bench.idle)
    whole = time.perf_counter() - told.begun
    starts = told.steps[0][0]
    print(
        f"it begins {starts:.1f} s after Learn (<= {STARTS:.0f}), proposes a version after {proposed:.1f} s"
    )
    print(f"first new labels after {changed[0]:.1f} s (<= {UNTIL_BETTER:.0f}), the last after {whole:.1f} s")
    print(
        f"lesion Dice of the {len(bench.truth) - CORRECTED} other slices: {before:.3f} to {bench.dice():.3f}"
    )
    return starts, changed[0]


def scrubbing(bench: Learner, repeats: int) -> float:
    """Return how much longer scrubbing takes while a model learns."""
    idle, busy = [], []
    bench.scrub()
    for _ in range(repeats):
        bench.until_passed(0.5)
        idle.append(bench.scrub())
        told = Told()
        bench.learn(told)
        bench.until(lambda told=told: len(told.steps) > 1)  # type: ignore[misc]
        busy.append(bench.scrub())
        if not bench.workbench.learning.running:
            raise SystemExit("the fine-tuning ended before the scrubbing")
        bench.stop()
    learning, alone = statistics.median(busy), statistics.median(idle)
    ratio = learning / alone
    figures = f"{learning:.2f} / {alone:.2f} s = {ratio:.2f} (<= {SCRUBBING})"
    print(f"scrubbing 50 slices, learning / idle: {figures}")
    return ratio


def refining(bench: Learner, repeats: int) -> float:
    """Return the longest median of the seconds that refining a slice takes."""
    medians = []
    for what in ("idle", "learning", "predicting"):
        seconds = []
        for turn in range(repeats):
            told = Told()
            if what == "learning":
                bench.learn(told)
                bench.until(lambda told=told: len(told.steps) > 1)  # type: ignore[misc]
            elif what == "predicting":
                bench.predict()
            seconds.append(bench.refine(bench.corrected[1] + 1 + turn))
            if what == "learning":
                bench.stop()
            elif what == "predicting":
                bench.session.cancel()
                bench.until(bench.idle)
        medians.append(statistics.median(seconds))
        print(f"refine this slice, {what}: {1e3 * medians[-1]:.0f} ms (<= {1e3 * REFINE:.0f})")
    return max(medians)


def main() -> None:
    """Print the figures; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description="Learning in a real viewer.")
    parser.add_argument("--patient", default="coronacases_002")
    parser.add_argument("--fold", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    model = Path(__file__).parent / "folds" / f"fold{arguments.fold}.safetensors"
    if arguments.patient not in find(str(model)).card.split["test"]:
        raise SystemExit(f"fold {arguments.fold} has not kept {arguments.patient} out")
    folder = Path(os.environ["COVSEG_DATA"]) / "covid_png256" / arguments.patient
    masks = sorted((folder / "infection").glob("*.png"))
    truth = np.stack([np.asarray(Image.open(path)) > 127 for path in masks])
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "workspace.zarr"
        case = Workspace.open(path).add_case(read_scan(folder / "ct"))
        bench = Learner(str(path), model, truth)
        bench.work(case)
        for z in ((np.arange(CORRECTED) + 0.5) * len(truth) / CORRECTED).astype(int):
            bench.correct(int(z))
        starts, better = until_better(bench)
        ratio = scrubbing(bench, arguments.repeats)
        slowest = refining(bench, arguments.repeats)
        bench.workbench.close()
        bench.viewer.close()
    print(json.dumps({"starts": starts, "until better": better, "scrubbing": ratio, "refine": slowest}))
    if starts > STARTS or better > UNTIL_BETTER or ratio > SCRUBBING or slowest > REFINE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
