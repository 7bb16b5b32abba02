from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest
from listening import Listener
from tiny_model import tiny_scan

from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import Failed, Finished, PredictionStarted, SlicesDone
from napari_covseg.jobs.requests import Predict


@pytest.mark.slow
@pytest.mark.timeout(600)  # four children load torch, at the lowest priority
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_three_kills_in_the_middle_of_a_prediction(
    client: JobClient, listener: Listener, workspace: Workspace, model: str
) -> None:
    case = workspace.case(workspace.add_case(tiny_scan(300)))
    deaths: list[str] = []
    client.on_death = deaths.append
    moments = random.Random(0)
    for kill in range(3):
        job_id = client.submit(Predict(workspace.path, case.id, model, 150, device="cpu"))
        listener.until(lambda j=job_id: any(isinstance(e, SlicesDone) for e in listener.of(j)))
        time.sleep(moments.uniform(0, 0.3))
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        events = listener.until_end(job_id)
        assert isinstance(events[-1], Failed) and deaths == [e.message for e in (events[-1],)] * (kill + 1)
        run = case.prediction(next(e.prediction_id for e in events if isinstance(e, PredictionStarted)))
        told = {z for e in events if isinstance(e, SlicesDone) for z in e.slices}
        assert told <= set(np.flatnonzero(run.done).tolist())
        assert not run.info.finished
        for z in np.flatnonzero(run.done):
            run.read_slice(int(z))  # raises unless it fits its checksum
    small = workspace.case(workspace.add_case(tiny_scan()))
    events = listener.until_end(client.submit(Predict(workspace.path, small.id, model, 0, device="cpu")))
    assert events[-1] == Finished()
    assert small.prediction(
        next(e.prediction_id for e in events if isinstance(e, PredictionStarted))
    ).done.all()
