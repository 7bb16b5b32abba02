"""One atomic write: a file is what it was, or all that was written."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, ending: str = "") -> Iterator[Path]:
    """Give the path of a file to write beside `path`, whose place it takes once all is on the disk.

    Whoever looks at any moment finds the file before or all of the new one.

    Parameters
    ----------
    path : Path
    ending : str
        Of the file beside it, where a library chooses a format by that.

    Raises
    ------
    OSError
        If it cannot be written; the file before is still there, and nothing else.
    """
    # not the whole name, which may be as long as names can be
    part = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part{ending}")
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file; see `replacing`."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8; see `replacing`."""
    write_bytes(path, text.encode())
