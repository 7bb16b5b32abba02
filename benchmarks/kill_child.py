"""Kill the computing process in the middle of predictions, and see that nothing finished is lost.

    python benchmarks/kill_child.py [--kills 20] [--model NAME] [--seed 0]

After each ``kill -9`` the client has to say so, every slice that the run records as done has to
be on disk with its checksum, and the next prediction has to start by itself.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from napari_covseg.cases.case import Case
from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import END, Event, Failed, Finished, PredictionStarted, SlicesDone
from napari_covseg.jobs.requests import Predict, WarmUp
from napari_covseg.models.catalogue import DEFAULT
from phantom_generator import phantom

PATIENCE = 600.0  # seconds


class Listener:
    """Polls a client for the events of one job."""

    def __init__(self, client: JobClient, job_id: int) -> None:
        self.events: list[Event] = []
        self._client = client
        self._job_id = job_id

    def until(self, condition: Callable[[], bool] = lambda: False) -> None:
        """Listen until something is so, or to the job's end."""
        end = time.monotonic() + PATIENCE
        while not condition() and not self.ended:
            if time.monotonic() > end:
                raise SystemExit(f"no answer in {PATIENCE:.0f} s; the child printed: {self._client.log[-3:]}")
            time.sleep(0.002)
            self.events += [event for job_id, event in self._client.poll() if job_id == self._job_id]

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return bool(self.events) and isinstance(self.events[-1], END)

    def told(self) -> set[int]:
        """Return the slices that were told to be done."""
        return {z for event in self.events if isinstance(event, SlicesDone) for z in event.slices}

    def prediction_id(self) -> str | None:
        """Return the id of the run, None before it has begun."""
        return next(
            (event.prediction_id for event in self.events if isinstance(event, PredictionStarted)), None
        )


def check(case: Case, listener: Listener, deaths: list[str]) -> int:
    """Return how many slices a killed prediction has kept; SystemExit if one is lost."""
    last = listener.events[-1]
    if not isinstance(last, Failed) or deaths != [last.message]:
        raise SystemExit(f"the client did not tell of the death: {last}, {deaths}")
    prediction_id = listener.prediction_id()
    if prediction_id is None:
        return 0
    run = case.prediction(prediction_id)
    done = set(np.flatnonzero(run.done).tolist())
    if lost := listener.told() - done:
        raise SystemExit(f"slices {sorted(lost)} were told but are not on disk")
    for z in done:
        run.read_slice(z)  # raises unless it fits its checksum
    return len(done)


def predict(client: JobClient, job: Predict) -> Listener:
    """Begin a prediction and wait until its run is there."""
    listener = Listener(client, client.submit(job))
    listener.until(lambda: listener.prediction_id() is not None)
    return listener


def kill_after(seconds: float, client: JobClient, job: Predict) -> Listener | None:
    """Kill the child so long after a run began; None if the prediction was faster."""
    listener = predict(client, job)
    moment = time.monotonic() + seconds
    listener.until(lambda: time.monotonic() > moment)
    if listener.ended or client.pid is None:
        return None
    os.kill(client.pid, signal.SIGKILL)
    listener.until()
    return None if isinstance(listener.events[-1], Finished) else listener


def kill_often(kills: int, seed: int, case: Case, client: JobClient, job: Predict) -> tuple[list[int], float]:
    """Kill `kills` predictions; return how many slices each had kept, and how long a whole one takes."""
    deaths: list[str] = []
    client.on_death = deaths.append
    whole = predict(client, job)
    begun = time.monotonic()
    whole.until()
    seconds = time.monotonic() - begun
    moments, kept = random.Random(seed), []
    while len(kept) < kills:
        deaths.clear()
        killed = kill_after(moments.uniform(0, seconds), client, job)
        if killed is not None:
            kept.append(check(case, killed, deaths))
            print(f"kill {len(kept)} of {kills}: {kept[-1]} slices kept", file=sys.stderr, flush=True)
    last = predict(client, job)
    last.until()
    prediction_id = last.prediction_id()
    if (
        not isinstance(last.events[-1], Finished)
        or prediction_id is None
        or not case.prediction(prediction_id).done.all()
    ):
        raise SystemExit(f"the prediction after the last kill did not finish: {last.events[-1]}")
    return kept, seconds


def main() -> None:
    """Kill, check, and print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(folder)
        case = workspace.case(workspace.add_case(phantom(seed=0, shape=(32, 256, 256)).scan))
        job = Predict(workspace.path, case.id, arguments.model, first_slice=16, device="cpu")
        client = JobClient()
        client.start(WarmUp(arguments.model, "cpu"))
        kept, seconds = kill_often(arguments.kills, arguments.seed, case, client, job)
        client.close()
    print(
        f"{len(kept)} kills at random moments of a prediction (32 slices in {seconds:.1f} s): each was told, "
        f"all {sum(kept)} finished slices on disk and valid, each next prediction ran."
    )


if __name__ == "__main__":
    main()
