"""A prediction in the warm child against the bare network in the same child.

    python benchmarks/speed_predict.py WORKSPACE CASE MODEL [REPEATS]

Prints JSON: slices per second of the whole job (submit to `Finished`) with one look at each
slice and as the model card asks for it, of the network alone, of the store alone, and of the
preparation alone (the model's, and the papers' slowest); seconds until the first slice, and of
one bare forward; the device. Medians of interleaved repeats.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import END, Event, Failed, Finished, Notice, SlicesDone
from napari_covseg.jobs.requests import Predict, WarmUp
from napari_covseg.predict.options import PredictOptions
from speed_jobs import Forward, Prepare, Store

PATIENCE = 600.0  # seconds


class Stopwatch:
    """Submits jobs one after the other and notes when their events arrive."""

    def __init__(self) -> None:
        self._client = JobClient()

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def run(self, job: object, until: type[Event] = Finished) -> tuple[float, list[Event]]:
        """Return the seconds from submitting to the first event of a kind, and the events; then cancel."""
        begun = time.perf_counter()
        job_id = self._client.submit(job)
        events: list[Event] = []
        seconds = 0.0
        while not (events and isinstance(events[-1], END)):
            for number, event in self._client.poll():
                if number != job_id:
                    continue
                events.append(event)
                if not seconds and isinstance(event, until):
                    seconds = time.perf_counter() - begun
                    self._client.cancel(job_id)
            if time.perf_counter() - begun > PATIENCE:
                raise SystemExit(f"no answer in {PATIENCE:.0f} s; the child printed: {self._client.log[-3:]}")
            time.sleep(0.002)  # more often takes from the cores what the child needs
        if isinstance(events[-1], Failed):
            raise SystemExit(f"{events[-1].message} {self._client.log[-5:]}")
        return seconds, events

    def answers(self, job: object) -> list[float]:
        """Return the numbers that a job of this benchmark tells."""
        return [float(event.text) for event in self.run(job)[1] if isinstance(event, Notice)]

    def answer(self, job: object) -> float:
        """Return the first of them."""
        return self.answers(job)[0]


def main() -> None:
    """Print the figures as JSON."""
    workspace, case, model = sys.argv[1:4]
    repeats = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    slices = Workspace.open(workspace).case(case).shape[0]
    as_card_says = Predict(workspace, case, model, first_slice=slices // 2)
    predict = replace(as_card_says, options=PredictOptions(tta="none"))
    said, whole, bare, store, prepare, first, single = [], [], [], [], [], [], []
    with Stopwatch() as watch:
        watch.run(WarmUp(model))
        watch.run(predict)
        for _ in range(repeats):
            bare.append(watch.answer(Forward(workspace, case, model, slices)))
            whole.append(watch.run(predict)[0])
            said.append(watch.run(as_card_says)[0])
            store.append(watch.answer(Store(workspace, case, slices)))
            prepare.append(watch.answers(Prepare(workspace, case, model, slices)))
        for _ in range(2 * repeats):
            single.append(watch.answer(Forward(workspace, case, model, 1)))
            first.append(watch.run(predict, SlicesDone)[0])
    middle = statistics.median
    print(
        json.dumps(
            {
                "job": slices / middle(whole),
                "card": slices / middle(said),
                "forward": slices / middle(bare),
                "store": slices / middle(store),
                "prepare": [slices / middle(seconds) for seconds in zip(*prepare, strict=True)],
                "first": middle(first),
                "single": middle(single),
                "device": Workspace.open(workspace).case(case).predictions()[-1].settings["device"],
            }
        )
    )


if __name__ == "__main__":
    main()
