"""What viewer and child say to each other: length-prefixed pickles over two pipes.

The viewer sends `Submit`, `Cancel`, `Focus`, `FreeGPU` and `Shutdown`; the child answers
with pairs (job id, event).
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Submit:
    """Run a request under this id; a higher priority goes first.

    The request travels as a pickle of its own: one that the child cannot read is the end
    of that job, not of the child.
    """

    job_id: int
    job: bytes
    priority: int = 0


@dataclass(frozen=True)
class Cancel:
    """End a job and keep what it has finished."""

    job_id: int


@dataclass(frozen=True)
class Focus:
    """Slice `z` is on screen now."""

    job_id: int
    z: int


@dataclass(frozen=True)
class FreeGPU:
    """Give GPU memory back as soon as no job needs it."""


@dataclass(frozen=True)
class Shutdown:
    """Finish the slice being written and end."""


def pack(message: object) -> bytes:
    """Return a message as the bytes that travel."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def read_message(stream: BinaryIO) -> Any:
    """Wait for the next message.

    Raises
    ------
    EOFError
        If the other side has closed its end, also in the middle of a message.
    """
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
    return pickle.loads(_read_exactly(stream, length))


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data
