from __future__ import annotations

import os
import random
import signal
import time

import pytest
from listening import Listener
from reviewing import correct
from tiny_jobs import SmallFinetune

from napari_covseg.cases import Case, Workspace
from napari_covseg.cases.versions import Versions
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import Failed, Finished, TrainingStep
from napari_covseg.models.card import card_of

STEPS = 8


@pytest.mark.timeout(900)  # six children load torch, at the lowest priority
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_five_kills_in_the_middle_of_a_fine_tuning(
    client: JobClient, listener: Listener, workspace: Workspace, case: Case, model: str
) -> None:
    """Three while it learns, two while the version is measured and written."""
    correct(workspace, case.id, range(3))  # too few to hold one out: the last weights are proposed
    job = SmallFinetune(workspace.path, (case.id,), model, steps=STEPS, device="cpu")
    moments, proposed = random.Random(0), 0

    def reached(job_id: int, step: int) -> bool:
        return any(isinstance(e, TrainingStep) and e.step >= step for e in listener.of(job_id))

    def begun(job_id: int, step: int) -> bool:
        """Whether a job has taken a step; False if a death just before took it along."""
        failed = lambda: any(isinstance(event, Failed) for event in listener.of(job_id))  # noqa: E731
        listener.until(lambda: reached(job_id, step) or failed())
        return reached(job_id, step)

    def begin(step: int) -> int:
        return next(job_id for job_id in (client.submit(job) for _ in range(3)) if begun(job_id, step))

    for step in (0, 3, 6, STEPS, STEPS):
        job_id = begin(step)
        if step == STEPS:
            time.sleep(moments.uniform(0, 0.3))
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        ended = listener.until_end(job_id)[-1]
        proposed += isinstance(ended, Finished)  # the kill came too late
        assert isinstance(ended, Failed | Finished)
        versions = Versions(workspace)
        for version in versions.list():  # all that are listed can be read to the last byte
            card_of(versions.weights(version.id), version.id)
            assert len(versions.curves(version.id).losses) == STEPS
        assert proposed <= len(versions.list()) <= proposed + 1
        proposed = len(versions.list())
    assert listener.until_end(begin(0))[-1] == Finished()
    assert len(Versions(workspace).list()) == proposed + 1
