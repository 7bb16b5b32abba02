"""Many simulated patients, several at a time, each kept in a file of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from napari_covseg.assess.effort import Protocol, run
from napari_covseg.assess.patients import Assessed
from napari_covseg.errors import JobError
from napari_covseg.models.file import load_model

Record = dict[str, Any]


def run_all(
    patients: Sequence[Assessed], protocols: Sequence[Protocol], out: Path, *, jobs: int = 1
) -> Iterator[Record]:
    """Simulate every patient under every protocol; what is in the folder already is read, not made again.

    Parameters
    ----------
    patients : sequence of Assessed
    protocols : sequence of Protocol
    out : Path
        Folder, made if needed: a JSON file per patient and protocol.
    jobs : int
        Processes; they share the processor's cores.

    Yields
    ------
    dict
        A record, as from `effort.run`, as soon as it is done.

    Raises
    ------
    JobError
        If a file in the folder comes from another protocol or model, or cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    missing = []
    for protocol in protocols:
        for one in patients:
            path = out / file_name(one, protocol)
            if path.is_file():
                yield _read(path, one, protocol)
            else:
                missing.append((one, protocol, path))
    threads = max(1, (os.cpu_count() or 1) // max(1, jobs))
    if jobs <= 1:
        for work in missing:
            yield _work(*work, threads)
        return
    # fresh processes: forked ones would share torch's threads
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        coming = [pool.submit(_work, *work, threads) for work in missing]
        try:
            for done in as_completed(coming):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def file_name(assessed: Assessed, protocol: Protocol) -> str:
    """Return the name of the file that a simulation is kept in."""
    return f"{assessed.patient.name}-{protocol.strategy}-{protocol.condition}-{protocol.seed}.json"


def _work(assessed: Assessed, protocol: Protocol, path: Path, threads: int) -> Record:
    torch.set_num_threads(threads)
    record = run(assessed, load_model(assessed.model, "cpu"), protocol)
    record |= {"weights": _checksum(assessed.model), "threads": threads}
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(record, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise JobError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error
    return record


def _read(path: Path, assessed: Assessed, protocol: Protocol) -> Record:
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        # what was added to the protocol since then had its default
        made = {**_as_json(Protocol()), **record["protocol"]}, record["weights"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} cannot be read ({error}): delete it to make it anew.") from error
    if made != (_as_json(protocol), _checksum(assessed.model)):
        raise JobError(
            f"{path} was made with other settings or another model: choose another folder, or delete it."
        )
    return record


def _as_json(protocol: Protocol) -> Record:
    """Return the protocol as it comes back from JSON, which knows no tuples."""
    values: Record = json.loads(json.dumps(asdict(protocol)))
    return values


def _checksum(model: Path) -> int:
    return zlib.crc32(model.read_bytes())
