"""Faults of the program itself: kept in a file that can go into a bug report."""

from __future__ import annotations

import datetime
import os
import platform
import sys
import traceback
from pathlib import Path

import platformdirs

KEPT = 20  # newest fault files that stay


def record_fault(job: object, error: BaseException) -> str:
    """Write the traceback to stderr and to a file, and return one line about it.

    Parameters
    ----------
    job : object
        The request that was running.
    error : BaseException
        What was raised, with its traceback.
    """
    text = "".join(traceback.format_exception(error))
    sys.stderr.write(text)
    what = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    line = f"A fault in the program stopped the {type(job).__name__.lower()} ({what})"
    try:
        path = _write(f"{job!r}\nPython {sys.version}, {platform.platform()}\n\n{text}")
    except OSError:
        return f"{line}; please report it."
    return f"{line}; please report it with {path}."


def _write(text: str) -> Path:
    folder = platformdirs.user_log_path("napari-covseg", ensure_exists=True)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    path = folder / f"fault-{stamp}-{os.getpid()}.txt"
    path.write_text(text, encoding="utf-8")
    for old in sorted(folder.glob("fault-*.txt"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path
