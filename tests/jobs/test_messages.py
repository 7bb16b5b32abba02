from __future__ import annotations

import io
import pickle
from dataclasses import FrozenInstanceError, is_dataclass

import numpy as np
import pytest

from napari_covseg.jobs import events, messages, requests
from napari_covseg.predict.options import PredictOptions

OPTIONS = PredictOptions(0.5, "flip", ("other",), "lungs", 0.1, 3, True)
EXAMPLES = [
    OPTIONS,
    requests.Import("workspace", "scan.nii.gz", "1.2.3"),
    requests.Predict("workspace", "case", "model", 3, 17, "cpu", 2, True, False, OPTIONS),
    requests.PredictFile("scan", "model", "lesions.nii.gz", None, None, "1.2.3", "cpu", 1, OPTIONS),
    requests.WarmUp("model", "cpu"),
    requests.Finetune("workspace", ("case",), "model", 30.0, 20, "cpu", 1),
    requests.Recognise("workspace", "case", ("model",), 3, 17, "cpu", False),
    requests.RecogniseFile("scan", ("model",), "heat.png", "1.2.3", "HU", "cpu", (("kind", "chest CT"),)),
    events.Started(1),
    events.Notice("text"),
    events.Progress(1, 2, "slices", 3.0, 4.0),
    events.PredictionStarted("run"),
    events.SlicesDone("run", (1, 2)),
    events.VolumeDone("run"),
    events.RecognitionStarted("model", "recognition", ("COVID-19", "normal"), "recognition"),
    events.SliceRecognised("model", 3, (0.25, None), "recognition"),
    events.ScanRecognised(
        "scan", "model", "manifestations", ("a",), (0.5,), (0.25,), 4, True, "Careful.", "r"
    ),
    events.Imported("case"),
    events.Written("file"),
    events.Finished(),
    events.Cancelled(),
    events.Failed("message", True),
    messages.Submit(1, b"job", 2),
    messages.Cancel(1),
    messages.Focus(1, 2),
    messages.FreeGPU(),
    messages.Shutdown(),
]
SCORES = {"lungs": 0.5, "lesion": 0.75}
HOLDING_TABLES_OR_ARRAYS = [
    requests.Refine("workspace", "case", "model", 3, 1, np.eye(4) > 0, np.eye(4) < 0, 17, "cpu"),
    events.TrainingStep(10, 30, 0.5, 2.0, SCORES, True),
    events.ModelProposed(
        "model-1", "model", {"held-out": {"before": SCORES, "after": SCORES}}, True, "Better: yes."
    ),
]


def test_every_request_event_and_message_has_an_example() -> None:
    kinds = {
        kind
        for module in (requests, events, messages)
        for kind in vars(module).values()
        if isinstance(kind, type) and is_dataclass(kind)
    }
    assert kinds == {type(example) for example in [*EXAMPLES, *HOLDING_TABLES_OR_ARRAYS]}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: type(e).__name__)
def test_pickles_and_is_frozen(example: object) -> None:
    assert pickle.loads(pickle.dumps(example)) == example
    assert hash(example) == hash(pickle.loads(pickle.dumps(example)))


@pytest.mark.parametrize("example", HOLDING_TABLES_OR_ARRAYS, ids=lambda e: type(e).__name__)
def test_tables_and_arrays_travel_too(example: object) -> None:
    again = messages.read_message(io.BytesIO(messages.pack(example)))
    assert type(again) is type(example)
    for name, value in vars(example).items():
        np.testing.assert_equal(getattr(again, name), value)
    with pytest.raises(FrozenInstanceError):
        setattr(example, next(iter(vars(example))), None)


def test_messages_travel_one_after_another() -> None:
    stream = io.BytesIO(b"".join(map(messages.pack, EXAMPLES)))
    assert [messages.read_message(stream) for _ in EXAMPLES] == EXAMPLES
    with pytest.raises(EOFError):
        messages.read_message(stream)


@pytest.mark.parametrize("kept", [3, 8, 20])
def test_a_torn_message_is_an_end(kept: int) -> None:
    with pytest.raises(EOFError):
        messages.read_message(io.BytesIO(messages.pack(EXAMPLES[0])[:kept]))


def test_records_are_named_in_snake_case() -> None:
    assert events.as_record(events.SlicesDone("run", (1, 2))) == {
        "event": "slices_done",
        "prediction_id": "run",
        "slices": (1, 2),
    }
