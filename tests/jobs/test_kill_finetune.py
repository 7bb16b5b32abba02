from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from listening import Listener
from reviewing import correct
from tiny_jobs import StayingFinetune

from napari_covseg.cases.case import Case
from napari_covseg.cases.check import check_workspace
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import WorkspaceModels
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import Event, Failed, Finished, ModelProposed, Progress, TrainingStep
from napari_covseg.models.card import card_of

STEPS = 8
WEIGHTS = "*.partial/weights/c.0"  # of a version that is being written


def step(event: Event) -> int:
    return event.step if isinstance(event, TrainingStep) else -1


@pytest.mark.slow
@pytest.mark.timeout(900)  # six children load torch, at the lowest priority
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_five_kills_in_the_middle_of_a_fine_tuning(
    client: JobClient, listener: Listener, workspace: Workspace, case: Case, model: str
) -> None:
    """Three while it learns, one while the version is measured, and one while it is written."""
    correct(workspace, case.id, range(3))  # too few to hold one out: the last weights are proposed
    job = StayingFinetune(workspace.path, (case.id,), model, steps=STEPS, device="cpu")
    versions = WorkspaceModels(workspace)

    def begin(job: StayingFinetune, reached: Callable[[list[Event]], bool]) -> int:
        """Begin a job, once more if a death just before took it along, and wait until it is so far."""
        for _ in range(3):
            job_id = client.submit(job)
            of = lambda job_id=job_id: listener.of(job_id)  # noqa: E731
            listener.until(lambda of=of: reached(of()) or any(isinstance(event, Failed) for event in of()))
            if not isinstance(of()[-1], Failed):
                return job_id
        raise AssertionError(of())

    def learning(after: int) -> Callable[[list[Event]], bool]:
        return lambda events: any(step(event) >= after for event in events)

    def measuring(events: list[Event]) -> bool:
        return learning(STEPS)(events) and isinstance(events[-1], Progress)

    def writing(events: list[Event]) -> bool:
        return learning(STEPS)(events) and any(workspace.models_folder.glob(WEIGHTS))

    endless = replace(job, steps=100_000)
    for one, reached in (
        (endless, learning(0)),
        (endless, learning(3)),
        (endless, learning(6)),
        (replace(job, stays="measured"), measuring),
        (replace(job, stays="written"), writing),
    ):
        job_id = begin(one, reached)
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        assert isinstance(listener.until_end(job_id)[-1], Failed)
        assert any(workspace.models_folder.glob(WEIGHTS)) == (reached is writing)
        assert versions.list() == []
        assert [found for found in check_workspace(workspace.path) if found.level == "damaged"] == []
    events = listener.until_end(begin(job, learning(0)))
    assert events[-1] == Finished()
    (version,) = versions.list()
    assert [event.model_id for event in events if isinstance(event, ModelProposed)] == [version.id]
    card_of(versions.weights(version.id), version.id)  # it can be read to the last byte
    assert len(versions.curves(version.id).losses) == STEPS
