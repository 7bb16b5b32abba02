"""Who has a case open: a lock of the operating system, which dies with its process."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from napari_covseg.cases.store import writing
from napari_covseg.errors import CaseError

if sys.platform == "win32":
    import msvcrt

    # far behind the text, so that others can still read who holds the lock
    _OFFSET = 1 << 30

    def _take(file: int) -> None:
        os.lseek(file, _OFFSET, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _give(file: int) -> None:
        os.lseek(file, _OFFSET, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _give(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


def _own_name() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = ""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"user": user, "host": socket.gethostname(), "pid": os.getpid(), "since": since})


def _who(path: Path) -> str:
    """Return who wrote the lock file, for a message."""
    try:
        known = json.loads(path.read_text("utf-8"))
        name = f"{known['user'] or 'somebody'} on {known['host']} (process {known['pid']})"
        if not known.get("since"):
            return name
        since = datetime.fromisoformat(known["since"]).astimezone()
        return f"{name} since {since:%Y-%m-%d %H:%M}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def holder(path: Path) -> str:
    """Return who holds the lock on `path`, in words; empty if nobody does or it cannot be told."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return ""
    try:
        _take(file)
    except OSError:
        return _who(path)
    else:
        _give(file)
        return ""
    finally:
        os.close(file)


class Lock:
    """An exclusive lock on `path`, held until `release` or the end of the process.

    The file itself means nothing: it stays behind and only says who holds the lock.

    Parameters
    ----------
    path : Path
        Lock file; made if it is missing.
    what : str
        What the lock protects, for the message.

    Raises
    ------
    CaseError
        If somebody else, or another object in this process, holds the lock, or if the
        file cannot be written.
    """

    def __init__(self, path: Path, what: str) -> None:
        with writing("the lock", path.parent):
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(self._file)
        except OSError as error:
            os.close(self._file)
            self._file = None
            raise CaseError(
                f"{what} is already open by {_who(path)}: close it there or open it read-only."
            ) from error
        self._write(_own_name())

    def _write(self, text: str) -> None:
        assert self._file is not None
        try:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, text.encode("utf-8"))
        except OSError:
            # on a full disk the lock still holds; only its message says less
            return

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._file is None:
            return
        self._write("")
        _give(self._file)
        os.close(self._file)
        self._file = None
