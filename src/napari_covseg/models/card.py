"""What a model is and what it may be used for; read without loading the network."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from napari_covseg.errors import ModelError
from napari_covseg.labels import MODALITIES, NAMES, UNION, UNITED, Label, Modality, Task, joins, lesion

FORMAT = 1
RESEARCH_USE = "Research use only, not for diagnosis."
TTA = ("none", "lungs", "flip", "flips")
_LARGEST_HEADER = 16 * 2**20
_TABLES = ("network", "preparation", "thresholds", "split", "recipe", "scores", "sources")
_TUPLES = {"outputs", "modalities"}


@dataclass(frozen=True)
class ModelCard:
    """The card in a model file's header.

    Attributes
    ----------
    id : str
        Short and unique, for the shell and for the workspace.
    title, summary : str
        For a person: one line, and one to three sentences with the limits.
    network : dict
        ``name`` and ``settings`` for `networks.build.build_network`.
    preparation : dict
        Settings of `models.preparation.Preparation`.
    outputs : tuple of str
        Channel names: ``"lungs"`` and names of `labels.LESIONS`; for another task those of `labels.NAMES`.
    thresholds : dict of str to float
        Probability from which a voxel, or a slice, is labelled, per output. Where ground-glass and
        consolidation are told apart for voxels, that of their union, "lesion", decides, and their own ones
        only which of them it is.
    tta : {"none", "lungs", "flip", "flips"}
        Test-time augmentation that it is used with unless another is asked for.
    parent : str
        Id of the model that this one was fine-tuned from, or empty.
    trained_on : str
        The data, in words.
    split : dict
        Patients by part: ``training``, ``validation``, ``test``.
    recipe : dict
        Settings of the training run.
    scores : dict
        What was measured, on whom, and how; see the key ``protocol``.
    licence : str
        Of the weights.
    sources : dict of str to str
        The licence of each source that it learned from; "not stated" where none is known.
    created : str
        ISO date.
    use : str
    task : {"segmentation", "recognition", "manifestations"}
        What it is for. Only a model that recognises has outputs that exclude each other.
    modalities : tuple of str
        What it has learned from, ``"X-ray"``, ``"CT"`` or both: of anything else a model that names what a
        slice shows says nothing. Empty where nobody has said.
    trust : str
        How far what it says of a slice can be trusted: one sentence, with the figure; shown with its answers.
    trusted : bool
        Whether its probabilities may be shown as findings. They may not where nobody has measured, or where
        the figure falls apart once the source cannot be read from the picture.
    """

    id: str
    title: str
    summary: str
    network: dict[str, Any]
    preparation: dict[str, Any]
    outputs: tuple[str, ...]
    thresholds: dict[str, float]
    tta: str = "none"
    parent: str = ""
    trained_on: str = ""
    split: dict[str, list[str]] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    created: str = ""
    use: str = RESEARCH_USE
    task: Task = "segmentation"
    modalities: tuple[Modality, ...] = ()
    trust: str = ""
    trusted: bool = False

    @property
    def lesions(self) -> tuple[Label, ...]:
        """Labels of the lesion outputs, in the order of the outputs."""
        return tuple(lesion(name) for name in self.outputs if name != "lungs")

    @property
    def levels(self) -> dict[str, float]:
        """Thresholds of the outputs, and of the union of ground-glass and consolidation where it decides."""
        levels = {name: self.thresholds[name] for name in self.outputs}
        if joins(self.outputs):
            levels[UNION] = self.thresholds.get(UNION, min(self.thresholds[name] for name in UNITED))
        return levels

    def to_json(self) -> str:
        """Return the card as JSON text."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str = "the card") -> ModelCard:
        """Rebuild a card; `source` names the file in errors.

        Raises
        ------
        ModelError
            If the text is no card, or of a newer format, or names unknown lesions.
        """
        try:
            values = json.loads(text)
            version = values.pop("format")
            if version > FORMAT:
                raise ModelError(
                    f"{source} was written by a newer napari-covseg (card format {version}): update it."
                )
            known = {f.name for f in dataclasses.fields(cls)}
            values = {key: value for key, value in values.items() if key in known}
            for key in _TUPLES & values.keys():
                values[key] = tuple(values[key])
            card = cls(**values)
            _check_kinds(card)
            unknown = set(card.outputs) - set(NAMES[card.task])
            missing = set(card.outputs) - set(card.thresholds)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{source} has no readable model card ({error}): get the file again.") from error
        if unknown or missing:
            raise ModelError(
                f"{source} has outputs that are not known here ({', '.join(unknown | missing)}): update."
            )
        return card


def _check_kinds(card: ModelCard) -> None:
    """Raise TypeError or ValueError where a field would fail only when the model is used."""
    for key in (f.name for f in dataclasses.fields(card) if f.name not in _TUPLES):
        kind = dict if key in _TABLES else bool if key == "trusted" else str
        if not isinstance(getattr(card, key), kind):
            raise TypeError(f"its {key} is not a {kind.__name__}")
    name, settings = card.network.get("name"), card.network.get("settings", {})
    if not isinstance(name, str) or not isinstance(settings, dict):
        raise TypeError("its network has no name, or settings that are no table")
    names = card.outputs
    if not names or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError("its outputs are none, not distinct, or no names")
    if card.task not in NAMES:
        raise ValueError(f"its task {card.task!r} is not known here")
    if not set(card.modalities) <= set(MODALITIES):
        raise ValueError(f"its modalities {card.modalities} are not known here")
    if card.tta not in TTA:
        raise ValueError(f"its test-time augmentation {card.tta!r} is not known here")
    if not all(0 <= threshold <= 1 for threshold in card.thresholds.values()):
        raise ValueError("its thresholds are not between 0 and 1")


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read the card of a model file from its header; the weights are not touched.

    Raises
    ------
    ModelError
        If the file is missing, is no safetensors file, or has no card.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read_card(file, path.stat().st_size, str(path))
    except FileNotFoundError as error:
        raise ModelError(
            f"The model file {path} does not exist: check the path, or run `covseg models`."
        ) from error
    except OSError as error:
        raise ModelError(
            f"The model file {path} cannot be read ({error.strerror}): check its permissions."
        ) from error


def card_of(data: bytes, source: str) -> ModelCard:
    """Read the card of a model file that is in memory; `source` names it in errors.

    Raises
    ------
    ModelError
        If it is no safetensors file, or has no card.
    """
    return _read_card(io.BytesIO(data), len(data), source)


def _read_card(file: BinaryIO, size: int, source: str) -> ModelCard:
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 0 < length <= min(_LARGEST_HEADER, size):
        raise ModelError(f"{source} is not a model file (no safetensors header): choose a .safetensors file.")
    try:
        text = json.loads(file.read(length))["__metadata__"]["card"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{source} has no model card in its header: choose a file written by napari-covseg."
        ) from error
    return ModelCard.from_json(text, source)
