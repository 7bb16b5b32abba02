"""Kill the computing process in the middle of fine-tunings, and see that the models stay intact.

    python benchmarks/kill_finetune.py [--kills 50] [--model NAME] [--seed 0]

After each ``kill -9`` the client has to say so, every model that the workspace lists has to be
readable to its last byte, nothing in the workspace may be damaged, and the case has to open
with the labels that it had. Without ``--model`` it is a tiny one with random weights, which
learns nothing, but is measured and written as any other.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "jobs"))  # for the model of the tests

from tiny_model import write_tiny_model

from kill_child import Listener
from napari_covseg.cases.case import Review
from napari_covseg.cases.check import check_workspace
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import WorkspaceModels
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import Failed, Finished, TrainingStep
from napari_covseg.jobs.requests import Finetune, WarmUp
from napari_covseg.models.card import card_of
from phantom_generator import phantom

STEPS = 6


def begin(client: JobClient, job: Finetune) -> Listener:
    """Begin a fine-tuning and wait until its first step comes."""
    for _ in range(2):
        listener = Listener(client, client.submit(job))
        listener.until(lambda it=listener: any(isinstance(event, TrainingStep) for event in it.events))
        if not isinstance(listener.events[-1], Failed):
            return listener
        # a kill just after an end is known only now, and takes the next job along
    raise SystemExit(f"a fine-tuning did not begin: {listener.events[-1]}")


def check(workspace: Workspace, case_id: str, lesions: np.ndarray) -> int:
    """Return how many models there are; raises if anything cannot be read."""
    versions = WorkspaceModels(workspace)
    listed = versions.list()
    for version in listed:
        card_of(versions.weights(version.id), version.id)
        versions.curves(version.id)
    if len(listed) != sum(path.suffix != ".partial" for path in workspace.models_folder.glob("*-[0-9]*")):
        raise SystemExit("a model is there that cannot be listed")
    if damaged := [str(found) for found in check_workspace(workspace.path) if found.level == "damaged"]:
        raise SystemExit("\n".join(damaged))
    with OpenCase(workspace, case_id) as opened:
        if not np.array_equal(opened.live["lesions"], lesions):
            raise SystemExit("the case's labels have changed")
    return len(listed)


def kill_often(kills: int, seed: int, workspace: Workspace, case_id: str, job: Finetune) -> int:
    """Kill `kills` fine-tunings at random moments; return how many models there are in the end."""
    lesions = workspace.case(case_id).labels("lesions")[...]
    client = JobClient()
    client.start(WarmUp(job.model, "cpu"))
    whole = begin(client, job)
    begun = time.monotonic()
    whole.until()
    seconds, moments, done = time.monotonic() - begun, random.Random(seed), 0
    span = seconds
    while done < kills:
        listener, begun = begin(client, job), time.monotonic()
        moment = begun + moments.uniform(0, span)
        listener.until(lambda until=moment: time.monotonic() > until)
        if listener.ended or client.pid is None:
            span = time.monotonic() - begun  # the second one of a child is faster
            continue
        span = seconds
        os.kill(client.pid, signal.SIGKILL)
        listener.until()
        if isinstance(listener.events[-1], Failed):
            done += 1
            print(
                f"kill {done} of {kills}: {check(workspace, case_id, lesions)} models",
                file=sys.stderr,
                flush=True,
            )
    last = begin(client, job)
    last.until()
    client.close()
    if not isinstance(last.events[-1], Finished):
        raise SystemExit(f"the fine-tuning after the last kill did not finish: {last.events[-1]}")
    return check(workspace, case_id, lesions)


def main() -> None:
    """Kill, check, and print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", help="an id or a file; a tiny one with random weights if left out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or str(write_tiny_model(Path(folder) / "tiny.safetensors"))
        workspace = Workspace.open(Path(folder) / "workspace.zarr")
        made = phantom(seed=0, shape=(12, 128, 128), spacing=(20, 2.8, 2.8))
        case_id = workspace.add_case(made.scan)
        with OpenCase(workspace, case_id) as opened:
            y, x = (axis.ravel() for axis in np.indices(opened.case.shape[1:]))
            for z in (4, 6, 8):
                opened.live["lungs"][z], opened.live["lesions"][z] = made.lungs[z], made.lesions[z]
                for group in ("lungs", "lesions"):
                    opened.record(group, (np.full(y.shape, z), y, x), 0)
                opened.set_review(z, Review.CORRECTED)
        job = Finetune(workspace.path, (case_id,), model, steps=STEPS, device="cpu")
        models = kill_often(arguments.kills, arguments.seed, workspace, case_id, job)
    print(
        f"{arguments.kills} kills at random moments of a fine-tuning: the case opened with its labels, all "
        f"{models} models that are listed are readable, the next fine-tuning ran each time."
    )


if __name__ == "__main__":
    main()
