"""The arrays that a history lies in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import zarr
from zarr.storage import LocalStore

from napari_covseg.cases.store import FORMAT, KEY, create_rows

HISTORY_ARRAYS = ("sessions", "revisions")


def create_history(case: zarr.Group, first: int) -> None:
    """Make what is missing of a case's history; damaged metadata are kept beside.

    Parameters
    ----------
    case : zarr.Group
        In a local folder.
    first : int
        Number of the first revision.

    Raises
    ------
    OSError
        If the disk is full or the folder is read-only.
    """
    assert isinstance(case.store, LocalStore)
    folder = Path(case.store.root, case.path, "history")
    for place in (folder, *(folder / name for name in HISTORY_ARRAYS)):
        _set_damaged_aside(place / "zarr.json")
    group = case.require_group("history")
    if KEY not in group.attrs:
        group = group.update_attributes({KEY: {"kind": "history", "format": FORMAT, "first": first}})
    for name in HISTORY_ARRAYS:
        if name not in group:
            create_rows(group, name)


def _set_damaged_aside(path: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        os.replace(path, path.with_name(f"{path.name}.damaged"))
