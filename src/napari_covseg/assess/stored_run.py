"""The figures of one fold in a JSON file, without its weights; read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from napari_covseg.errors import JobError

Record = dict[str, Any]
Protocol = Literal["patient", "slice", "source"]

FORMAT = 2
"""1 had the outputs lungs and lesion, known everywhere; it is still read."""
PROTOCOLS: tuple[Protocol, ...] = ("patient", "slice", "source")
PLAIN = ("lungs", "lesion")
"""The outputs of a run of format 1."""
LEAK = (
    "With the protocol `slice`, slices of one patient lie on both sides of the split: its figures tell how "
    "well a network knows patients that it has learned from, not how well it labels a new one."
)


def write_record(path: Path, record: Record) -> None:
    """Write a record, with a line for each patient; raises JobError if that cannot be."""
    head = {key: value for key, value in record.items() if key != "rows"}
    rows = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in record["rows"])
    text = (
        json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
        + f',\n "rows": [\n  {rows}\n ]\n}}\n'
    )
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise JobError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error


def read_record(path: Path) -> Record:
    """Read a stored run.

    Raises
    ------
    JobError
        If it is damaged, or of a newer format.
    """
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        number = record["format"]
        missing = {"recipe", "protocol", "fold", "folds", "asked", "rows"} - set(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} cannot be read ({error}): delete it to make it anew.") from error
    if number not in range(1, FORMAT + 1) or missing:
        raise JobError(f"{path} is no run that is known here (format {number}): update napari-covseg.")
    return record
