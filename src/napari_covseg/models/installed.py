"""Models that a person has added: files in the user's data folder, put there whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from pathlib import Path

import platformdirs

from napari_covseg.errors import ModelError
from napari_covseg.files import replacing
from napari_covseg.models.card import ModelCard, read_card

SUFFIX = ".safetensors"
_CHECKOUT = Path(__file__).parents[3]


def models_folder() -> Path:
    """Return where installed models are kept: ``$COVSEG_MODELS`` or user data."""
    named = os.environ.get("COVSEG_MODELS")
    if named:
        return Path(named)
    return Path(platformdirs.user_data_dir("napari-covseg", appauthor=False)) / "models"


def installed_files() -> list[Path]:
    """Return the files of installed models."""
    return sorted(models_folder().glob(f"*{SUFFIX}"))


def repository_weights() -> Path | None:
    """Return the repository's folder of models that are not in the package; None outside a checkout."""
    folder = _CHECKOUT / "weights"
    return folder if folder.is_dir() and (_CHECKOUT / "pyproject.toml").is_file() else None


def install(name: str, source: str | os.PathLike[str] | None = None) -> tuple[ModelCard, Path]:
    """Copy a model to the user's data folder; one of the same name is replaced in one step.

    Parameters
    ----------
    name : str
        Id in the model's card.
    source : path, optional
        The model file, or a folder that holds ``<name>.safetensors``; by default the
        repository's folder ``weights``.

    Returns
    -------
    card : ModelCard
    path : Path
        Where the model is now.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged, or the folder cannot be written.
    """
    file = _source(name, source)
    card = read_card(file)
    if card.id != name:
        raise ModelError(f"{file} holds the model {card.id}, not {name}: install it under that name.")
    _check_complete(file)
    folder = models_folder()
    target = _installed_path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            shutil.copyfile(file, part)
    except OSError as error:
        raise ModelError(
            f"The model cannot be copied to {folder} ({error.strerror or error}): free some space, or name "
            "another folder with $COVSEG_MODELS."
        ) from error
    return card, target


def remove(name: str) -> Path:
    """Delete an installed model, and return where it was.

    Raises
    ------
    ModelError
        If no such model is installed, or its file cannot be deleted.
    """
    path = _installed_path(name)
    if not path.is_file():
        known = ", ".join(file.stem for file in installed_files()) or "none"
        raise ModelError(f"There is no installed model {name!r}: installed are {known}.")
    try:
        path.unlink()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be deleted ({error.strerror or error}): close what uses it."
        ) from error
    return path


def _installed_path(name: str) -> Path:
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ModelError(f"{name!r} is no name of a model: letters, digits, dots and dashes make one.")
    return models_folder() / f"{name}{SUFFIX}"


def _source(name: str, source: str | os.PathLike[str] | None) -> Path:
    """Return the file that holds a model, which is there."""
    place = repository_weights() if source is None else Path(os.path.expanduser(source))
    if place is None:
        raise ModelError(
            f"The model {name} does not come with the package: download it and name the file with --from."
        )
    if place.is_file():
        return place
    file = place / f"{name}{SUFFIX}"
    if not file.is_file():
        known = ", ".join(file.stem for file in sorted(place.glob(f"*{SUFFIX}"))) or "none"
        raise ModelError(f"There is no model {name!r} in {place}: it holds {known}.")
    return file


def _check_complete(path: Path) -> None:
    """Raise ModelError if the file is shorter than its header says: the end of a copy may be missing."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
    if path.stat().st_size != 8 + length + max(ends, default=0):
        raise ModelError(f"The model file {path} is not complete: get it again.")
