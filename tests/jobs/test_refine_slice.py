from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_covseg.cases.case import Case
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import ModelError
from napari_covseg.jobs.events import Finished, PredictionStarted, SlicesDone
from napari_covseg.jobs.messages import pack
from napari_covseg.jobs.requests import Refine
from napari_covseg.jobs.run import run


@pytest.fixture
def refine(workspace: Workspace, case: Case, model: str) -> Refine:
    positive, negative = np.zeros((2, *case.shape[1:]), bool)
    positive[15:18, 9:12] = True
    negative[22:28, 30:32] = True
    return Refine(workspace.path, case.id, model, 4, 1, positive, negative, device="cpu")


def labels(case: Case, job: Refine) -> np.ndarray:
    events = list(run(job))
    prediction_id = next(event.prediction_id for event in events if isinstance(event, PredictionStarted))
    assert SlicesDone(prediction_id, (4,)) in events and events[-1] == Finished()
    kept = case.prediction(prediction_id)
    assert np.flatnonzero(kept.done).tolist() == [4]
    return kept.read_slice(4)[1]


def test_a_slice_is_refined_into_a_run_of_its_own(case: Case, refine: Refine) -> None:
    lesions = labels(case, refine)
    assert (lesions[refine.positive] == 1).all() and not lesions[refine.negative].any()


def test_scribbles_without_a_meaning_for_the_model_are_refused(refine: Refine) -> None:
    with pytest.raises(ModelError, match="does not know label 4"):
        list(run(replace(refine, label=4)))


def test_a_label_without_an_output_of_its_own_is_painted_as_itself(case: Case, refine: Refine) -> None:
    lesions = labels(case, replace(refine, label=3))
    assert (lesions[refine.positive] == 3).all()


def test_requests_with_scribbles_travel(refine: Refine) -> None:
    assert pack(refine)
