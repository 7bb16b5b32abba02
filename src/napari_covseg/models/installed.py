"""Models that a person has added: files in the user's data folder, put there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from napari_covseg.errors import ModelError
from napari_covseg.files import replacing
from napari_covseg.models.card import ModelCard, read_card

SUFFIX = ".safetensors"
_CHECKOUT = Path(__file__).parents[3]
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20


@dataclass(frozen=True)
class PublishedModel:
    """A model that is offered beside the package.

    Attributes
    ----------
    id, title, licence : str
        As its card says them.
    size : int
        Of its file, in bytes.
    sha256 : str
        Of its file, hexadecimal.
    """

    id: str
    title: str
    licence: str
    size: int
    sha256: str


@cache
def published() -> tuple[PublishedModel, ...]:
    """Return the models in the repository's folder ``weights``, as the package knows them."""
    listed = json.loads(Path(__file__).with_name("published.json").read_text("utf-8"))
    return tuple(PublishedModel(**one) for one in listed)


def list_of(folder: Path) -> str:
    """Return what `published` reads, JSON text, of the model files in a folder."""
    models = []
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        card = read_card(file)
        size, digest = file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()
        models.append(
            {"id": card.id, "title": card.title, "licence": card.licence, "size": size, "sha256": digest}
        )
    return json.dumps(models, indent=1, ensure_ascii=False) + "\n"


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
    source : path or URL, optional
        The model file, or a folder that holds ``<name>.safetensors``; either may be a http address. By
        default the repository's folder ``weights``.

    Returns
    -------
    card : ModelCard
    path : Path
        Where the model is now.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged, or not the file that was published under its name, or
        cannot be downloaded, or the folder cannot be written.
    """
    if re.match(r"https?://", str(source)):
        with _downloaded(name, str(source)) as (file, address):
            return _install(name, file, address)
    file = _source(name, source)
    return _install(name, file, str(file))


def _install(name: str, file: Path, said: str) -> tuple[ModelCard, Path]:
    card = read_card(file)
    if card.id != name:
        raise ModelError(f"{said} holds the model {card.id}, not {name}: install it under that name.")
    _check_complete(file, said)
    known = {one.id: one.sha256 for one in published()}
    if name in known and hashlib.sha256(file.read_bytes()).hexdigest() != known[name]:
        raise ModelError(
            f"{said} is not the model {name} that belongs to this version of napari-covseg (its SHA-256 is "
            "another): get it again, or update napari-covseg."
        )
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


@contextmanager
def _downloaded(name: str, address: str) -> Iterator[tuple[Path, str]]:
    """Yield a model that was downloaded, and the address of its file; it is gone afterwards."""
    if not address.endswith(SUFFIX):
        address = f"{address.rstrip('/')}/{name}{SUFFIX}"
    with TemporaryDirectory(prefix="covseg-") as folder:
        file = Path(folder) / f"{name}{SUFFIX}"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer, file.open("wb") as out:
                shutil.copyfileobj(answer, out, _CHUNK)
        except urllib.error.HTTPError as error:
            raise ModelError(f"{address} gives no file ({error}): check the address.") from error
        except (OSError, ValueError) as error:  # no such host, cut off, no room; no address at all
            reason = getattr(error, "reason", error)
            raise ModelError(
                f"{address} cannot be downloaded ({reason}): check the address and the connection."
            ) from error
        yield file, address


def _source(name: str, source: str | os.PathLike[str] | None) -> Path:
    """Return the file that holds a model, which is there."""
    place = repository_weights() if source is None else Path(os.path.expanduser(source))
    if place is None:
        raise ModelError(
            f"The model {name} does not come with the package: name the folder `weights` of the project's "
            "repository, or the address of that folder, or the file, with --from."
        )
    if place.is_file():
        return place
    file = place / f"{name}{SUFFIX}"
    if not file.is_file():
        known = ", ".join(file.stem for file in sorted(place.glob(f"*{SUFFIX}"))) or "none"
        raise ModelError(f"There is no model {name!r} in {place}: it holds {known}.")
    return file


def _check_complete(path: Path, said: str) -> None:
    """Raise ModelError if the file is shorter than its header says: the end of a copy may be missing."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
    if path.stat().st_size != 8 + length + max(ends, default=0):
        raise ModelError(f"The model file {said} is not complete: get it again.")
