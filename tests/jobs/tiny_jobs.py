"""Jobs that are over soon, for the tests of scheduler and child."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from napari_covseg.errors import CaseError
from napari_covseg.jobs.events import Event, Notice, Progress, SlicesDone
from napari_covseg.jobs.requests import Finetune
from napari_covseg.jobs.run import JOBS
from napari_covseg.jobs.steps import Control, in_thread


@dataclass(frozen=True)
class Count:
    """Count slices into a file, one step each; always the one nearest to the focus."""

    path: str
    slices: int
    seconds: float = 0.0
    first: int = 0


@dataclass(frozen=True)
class Fail:
    how: str


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Environment:
    names: tuple[str, ...]


@dataclass(frozen=True)
class StayingFinetune(Finetune):
    """A fine-tuning that stays forever where it is measured, or where a part of its version is written."""

    stays: Literal["", "measured", "written"] = ""


def count(job: Count, control: Control) -> Iterator[Event]:
    todo = set(range(job.slices))
    focus = [job.first]
    control.on_focus(lambda z: focus.__setitem__(0, z))
    with open(job.path, "a") as file:
        try:
            while todo:
                z = min(todo, key=lambda z: abs(z - focus[0]))
                todo.remove(z)
                time.sleep(job.seconds)
                file.write(f"{z}\n")
                file.flush()
                yield SlicesDone("count", (z,))
        finally:
            file.write("end\n")


def fail(job: Fail, control: Control) -> Iterator[Event]:
    yield Notice("about to fail")
    if job.how == "user":
        raise CaseError("The case is not there; import it first.")
    if job.how == "print":
        print("this must not reach the pipe")
        os.write(1, b"nor this")
        os.system("echo nor that")
        yield Notice(repr(sys.stdin.read()))
        return
    if job.how == "exit":
        sys.stderr.write("last words\n")
        sys.stderr.flush()
        os._exit(3)
    raise ZeroDivisionError("one\nby zero")


def wait(job: Wait, control: Control) -> Iterator[Event]:
    yield from in_thread(lambda: time.sleep(job.seconds), lambda: Progress(0, 0, "naps"))


def environment(job: Environment, control: Control) -> Iterator[Event]:
    for name in job.names:
        yield Notice(f"{name}={os.environ.get(name)}")
    if hasattr(os, "getpriority"):
        yield Notice(f"nice={os.getpriority(os.PRIO_PROCESS, 0)}")
    yield Notice(f"torch={'torch' in sys.modules}")


def staying_finetune(job: StayingFinetune, control: Control) -> Iterator[Event]:
    from napari_covseg.cases import workspace_models
    from napari_covseg.jobs import finetune_cases

    def and_stay(function: Callable[..., object]) -> Callable[..., None]:
        def stay(*args: object) -> None:
            function(*args)
            threading.Event().wait()

        return stay

    if job.stays == "measured":
        finetune_cases._regression = and_stay(finetune_cases._regression)
    if job.stays == "written":
        workspace_models.write_record = and_stay(workspace_models.write_record)
    yield from finetune_cases.finetune_cases(job, control)


JOBS |= {
    Count: ("tiny_jobs:count", "slices"),
    Fail: ("tiny_jobs:fail", "slices"),
    Wait: ("tiny_jobs:wait", "slices"),
    Environment: ("tiny_jobs:environment", "slices"),
    StayingFinetune: ("tiny_jobs:staying_finetune", "slices"),
}
