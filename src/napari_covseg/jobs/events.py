"""What a job says while it runs: frozen dataclasses that pickle, without torch.

A job ends with exactly one of `Finished`, `Cancelled` and `Failed`. Slices that were
finished by then are in the prediction, also those that no `SlicesDone` has named yet.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from napari_covseg.labels import Task


@dataclass(frozen=True)
class Started:
    """The job has its first turn."""

    job_id: int


@dataclass(frozen=True)
class Notice:
    """Something a person should know, one sentence; work goes on."""

    text: str


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes
    ----------
    done, total : int
        In units of `unit`; `total` is 0 while it is unknown.
    unit : str
        What is counted, in the plural.
    per_second, seconds_left : float, optional
        None until there is something to measure.
    """

    done: int
    total: int
    unit: str
    per_second: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class PredictionStarted:
    """A prediction has its place in the case."""

    prediction_id: str


@dataclass(frozen=True)
class SlicesDone:
    """These slices of a prediction are on disk."""

    prediction_id: str
    slices: tuple[int, ...]


@dataclass(frozen=True)
class VolumeDone:
    """The last pass in 3-D has rewritten the slices."""

    prediction_id: str


@dataclass(frozen=True)
class RecognitionStarted:
    """A model is asked about a scan.

    Attributes
    ----------
    model_id : str
    task : {"recognition", "manifestations"}
    outputs : tuple of str
        What the probabilities are of.
    recognition_id : str
        Its place in the case; empty for a file.
    """

    model_id: str
    task: Task
    outputs: tuple[str, ...]
    recognition_id: str = ""


@dataclass(frozen=True)
class SliceRecognised:
    """A model has answered for a slice.

    Attributes
    ----------
    model_id : str
    z : int
    probabilities : tuple of float or None
        In the order of the outputs; None for a slice without lung, of which nothing was asked.
    recognition_id : str
        As in `RecognitionStarted`.
    """

    model_id: str
    z: int
    probabilities: tuple[float | None, ...]
    recognition_id: str = ""


@dataclass(frozen=True)
class ScanRecognised:
    """A model has answered for a scan, or was not asked.

    Attributes
    ----------
    name : str
        Of the scan.
    model_id, task, outputs, recognition_id
        As in `RecognitionStarted`.
    probabilities, shares, slices
        As in `recognise.answers.ScanAnswer`; none where it was not asked.
    shown, caution
        As in `recognise.answers.Verdict`: whether the answer may be shown as a finding, and what is said with
        it.
    """

    name: str
    model_id: str
    task: Task
    outputs: tuple[str, ...]
    probabilities: tuple[float, ...]
    shares: tuple[float, ...]
    slices: int
    shown: bool
    caution: str
    recognition_id: str = ""


@dataclass(frozen=True)
class TrainingStep:
    """A fine-tuning has taken a step, or is about to take the first.

    Attributes
    ----------
    step, steps : int
        Steps done, and at most.
    loss : float, optional
        Of this step; None before the first.
    seconds : float
        Since the first began.
    held_out : dict of str to float, optional
        Dice per output on the corrected slices that are held out, where it was measured.
    best : bool
        Whether these weights are the ones that would be kept now.
    """

    step: int
    steps: int
    loss: float | None
    seconds: float
    held_out: dict[str, float] | None = None
    best: bool = False


@dataclass(frozen=True)
class ModelProposed:
    """A fine-tuning has written a version for a person to keep or discard.

    Attributes
    ----------
    model_id, parent : str
    scores : dict
        By ``"held-out"`` and parts of the regression set: ``before`` and ``after``, Dice per output.
    recommended : bool
        Whether the measurements speak for keeping it.
    reason : str
        Why, and what it paints more and less, in words.
    """

    model_id: str
    parent: str
    scores: dict[str, dict[str, dict[str, float]]]
    recommended: bool
    reason: str


@dataclass(frozen=True)
class Imported:
    """A scan has become a case, or was one before.

    Attributes
    ----------
    case_id : str
    known : bool
        Whether the case was there before.
    """

    case_id: str
    known: bool = False


@dataclass(frozen=True)
class Written:
    """A file was written."""

    path: str


@dataclass(frozen=True)
class Finished:
    """The job came to its end."""


@dataclass(frozen=True)
class Cancelled:
    """The job was stopped on request; finished slices are kept."""


@dataclass(frozen=True)
class Failed:
    """The job stopped on an error.

    Attributes
    ----------
    message : str
        One line for a person.
    user_error : bool
        True if a person can mend it, False if it is a fault of the program.
    """

    message: str
    user_error: bool


Event = (
    Started
    | Notice
    | Progress
    | PredictionStarted
    | SlicesDone
    | VolumeDone
    | RecognitionStarted
    | SliceRecognised
    | ScanRecognised
    | TrainingStep
    | ModelProposed
    | Imported
    | Written
    | Finished
    | Cancelled
    | Failed
)
END = (Finished, Cancelled, Failed)


def as_record(event: Event) -> dict[str, Any]:
    """Return an event as JSON-ready values; key ``event`` holds its name in snake case."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": name, **asdict(event)}
