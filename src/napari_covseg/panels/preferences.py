"""What a person likes, kept from one start of the viewer to the next."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from napari_covseg.files import write_text

_log = logging.getLogger(__name__)
T = TypeVar("T")


def preferences_file() -> Path:
    """Return where preferences are kept: ``$COVSEG_PREFERENCES`` or the user's configuration."""
    named = os.environ.get("COVSEG_PREFERENCES")
    if named:
        return Path(named)
    return Path(platformdirs.user_config_dir("napari-covseg", appauthor=False)) / "preferences.json"


def preferred(name: str, otherwise: T) -> T:
    """Return what was kept under a name; `otherwise` if that is nothing, or of another type."""
    value = _read().get(name)
    return value if type(value) is type(otherwise) else otherwise


def prefer(name: str, value: bool | float | str | list[int]) -> None:
    """Keep what a person likes; a disk that does not take it only forgets it."""
    path, known = preferences_file(), _read()
    if known.get(name) == value:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(known | {name: value}, indent=1))
    except OSError as error:
        _log.warning("Preferences cannot be kept in %s: %s", path, error)


def _read() -> dict[str, Any]:
    try:
        known = json.loads(preferences_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
