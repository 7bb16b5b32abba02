"""Keep a queue of trainings going beside all other work; it may be killed at any moment.

    make trained [PIN=COMMIT]     start it, or move the next trainings to another commit
    make trained-status           what is done, running, waiting and failed
    make trained-pause            stop computing until make trained-resume
    make trained-retry NAME=...   give a failed training another chance

`benchmarks/training_queue.toml` lists the trainings. They run one after the other from a git
worktree at a pinned commit, with an environment of its own, so that work on the code does not
disturb them, at the lowest priority. Worktree, environment, logs, checkpoints and finished models
lie in one folder, `trained-weights` by default. What happened is only ever read from the files
there: a queue that was killed goes on with the training that it was at.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from napari_covseg.errors import JobError, ModelError
from napari_covseg.files import replacing, write_text
from napari_covseg.models.card import ModelCard, read_card

CHECKOUT = Path(__file__).resolve().parent.parent
LOOK = 0.25  # seconds between two looks at the training process and the flags
PATIENCE = 60.0  # seconds that a training process has to write its checkpoint
TRIES = 3  # starts in a row without a step, after which a training has failed
PHANTOMS = "sample_data/make_training.py"  # writes what training_all.toml reads beside $COVSEG_DATA
WEIGHTS = 150e6  # bytes of model files that are committed, of all together
OTHER_THREADS = 600.0  # seconds that another number of threads must have been better, with --adapt


# The table -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """One training of the table.

    Attributes
    ----------
    name : str
        Of its files: ``NAME.safetensors``, ``NAME.checkpoint``, ``NAME.log``.
    command : tuple of str
        Arguments of ``covseg``, without model file, checkpoint and threads; ``{out}`` (the
        folder of the queue) and ``{name}`` are still in it.
    needs : tuple of str
        Names of trainings that must be done before.
    ship : bool
        Whether the model goes into ``weights``.
    minutes : float
        Estimate, for the status.
    note : str
        What is special about it; goes into its figures.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    ship: bool = False
    minutes: float = 60.0
    note: str = ""


def read_table(path: Path) -> list[Training]:
    """Read the table; an entry with folds becomes a training for each.

    Raises
    ------
    JobError
        If the file cannot be read, or an entry is not complete.
    """
    try:
        entries = tomllib.loads(path.read_text("utf-8")).get("training", [])
    except (OSError, ValueError) as error:
        raise JobError(f"The table {path} cannot be read ({error}): mend it.") from error
    parts: dict[str, list[str]] = {}  # of entries with folds
    trainings: dict[str, Training] = {}
    for entry in entries:
        name, command, wrong = entry.get("name", ""), entry.get("command", []), _wrong(entry)
        given = {key: entry[key] for key in ("ship", "minutes", "note") if key in entry}
        for fold in entry.get("folds", [""]):
            one = f"{name}-fold{fold}" if fold else name
            parts.setdefault(name, []).append(one)
            filled = tuple(str(word).replace("{fold}", str(fold)) for word in command)
            needs = [need.replace("{fold}", str(fold)) for need in entry.get("needs", [])]
            needs = [each for need in needs for each in parts.get(need, [need])]
            if one in trainings:
                wrong = wrong or "its name is there twice"
            elif not trainings.keys() >= set(needs):
                wrong = wrong or f"it needs {', '.join(needs)}: not all of them stand above it"
            trainings[one] = Training(one, filled, tuple(needs), **given)
        if wrong:
            raise JobError(f"The training {name!r} in {path} is not complete ({wrong}): mend the table.")
    return list(trainings.values())


def _wrong(entry: Mapping[str, Any]) -> str:
    """Return what is wrong with an entry by itself, or nothing."""
    unknown = set(entry) - {f.name for f in dataclasses.fields(Training)} - {"folds"}
    if unknown:
        return f"it has unknown keys: {', '.join(sorted(unknown))}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", entry.get("name", "")) or entry["name"] == "queue":
        return "it has no name in small letters"
    if not entry.get("command") or {"--out", "--checkpoint", "--threads"} & set(entry["command"]):
        return "it has no command, or one with --out, --checkpoint or --threads, which the queue adds"
    return ""


# The folder ------------------------------------------------------------------------------------


@dataclass
class Record:
    """What became of a training, in ``NAME.run.json``.

    Attributes
    ----------
    state : {"begun", "done", "failed"}
    commit : str
        Of the code that it began with, and with which it is finished.
    command : list of str
        As it began.
    threads : int
    seconds : float
        Of all its processes together, as far as the queue saw their end.
    step : int
        At which its last process began.
    fruitless : int
        Processes in a row that ended without an error and without a step.
    error : str
        Last line of the log of a training that failed.
    finished : float
        Unix time.
    """

    state: str
    commit: str
    command: list[str]
    threads: int
    seconds: float = 0.0
    step: int = 0
    fruitless: int = 0
    error: str = ""
    finished: float = 0.0


@dataclass(frozen=True)
class Folder:
    """The files of the queue."""

    path: Path

    @property
    def worktree(self) -> Path:
        """Where the code lies that trains."""
        return self.path / "worktree"

    @property
    def python(self) -> Path:
        """The Python of the environment that trains."""
        return self.path / ".venv" / "bin" / "python"

    @property
    def paused(self) -> Path:
        """While it is there, nothing trains."""
        return self.path / "paused"

    @property
    def frozen(self) -> Path:
        """While it is there, the training process stands still."""
        return self.path / "frozen"

    @property
    def nice(self) -> int:
        """The priority of the queue: 19, the lowest, unless something else was asked for."""
        path = self.path / "nice"
        return int(path.read_text()) if path.is_file() else 19

    def file(self, name: str, suffix: str) -> Path:
        """Return a file of a training."""
        return self.path / f"{name}.{suffix}"

    def record(self, name: str) -> Record | None:
        """Return what became of a training; None if it has not begun."""
        values = read_json(self.file(name, "run.json"))
        return Record(**values) if values else None

    def keep(self, name: str, record: Record) -> None:
        """Store what became of a training."""
        write_json(self.file(name, "run.json"), dataclasses.asdict(record))

    def progress(self, name: str) -> dict[str, Any]:
        """Return what the training process said last; empty if nothing."""
        return read_json(self.file(name, "checkpoint.progress"))

    def forget(self, name: str) -> None:
        """Remove all that a training has made, but its log."""
        for suffix in ("run.json", "checkpoint", "checkpoint.progress", "safetensors"):
            self.file(name, suffix).unlink(missing_ok=True)

    def last_line(self, name: str) -> str:
        """Return the last line of a log."""
        log = self.file(name, "log")
        if not log.is_file():
            return ""
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = re.split(r"[\r\n]+", file.read().decode("utf-8", "replace"))
        # Errors of the command line come in a box.
        return next((line.strip("│ ") for line in reversed(lines) if re.search(r"\w", line)), "")

    def queue(self) -> dict[str, Any]:
        """Return what the running queue is at; empty if none runs."""
        path = self.path / "queue.lock"
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            return {} if taken(file, fcntl.LOCK_SH) else read_json(self.path / "queue.json")


def taken(file: IO[Any], kind: int) -> bool:
    """Take the lock of an open file, until it is closed, and return whether nobody else has it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_json(path: Path) -> dict[str, Any]:
    """Return a table; empty if the file is not there or not whole."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a table, atomically."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


# Idle cores ------------------------------------------------------------------------------------


def threads_for(others: float, cores: int) -> int:
    """Return with how many threads to train while others keep `others` cores busy."""
    return max(1, min(cores, round(cores - others)))


class OtherLoad:
    """How many cores are busy with what is not ours."""

    def __init__(self) -> None:
        self._samples: collections.deque[tuple[float, float]] = collections.deque(maxlen=200)

    def sample(self, child: int | None) -> None:
        """Look, at most every five seconds; `child` is the training process."""
        now = time.monotonic()
        if self._samples and now - self._samples[-1][0] < 5:
            return
        with contextlib.suppress(OSError, ValueError, IndexError):
            ticks = os.sysconf("SC_CLK_TCK")
            fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
            busy = (sum(fields) - fields[3] - fields[4]) / ticks  # neither idle nor waiting for a disk
            own = os.times().children_user + os.times().children_system
            if child is not None:
                stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                own += (int(stat[11]) + int(stat[12])) / ticks
            self._samples.append((now, busy - own))

    def cores(self, seconds: float = 60.0) -> float:
        """Return the mean of the last `seconds`; the system's load where there is none yet."""
        recent = [one for one in self._samples if one[0] >= time.monotonic() - seconds]
        if len(recent) < 2 or recent[-1][0] - recent[0][0] < seconds / 3:
            return os.getloadavg()[0]
        return max(0.0, (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0]))


# The queue -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where the queue reads and writes; all follow from the checkout.

    Attributes
    ----------
    checkout : Path
        Has the table, and gets the models that ship and the figures.
    folder : Folder
    python : Path or None
        Trains instead of the pinned environment: for tests.
    """

    checkout: Path
    folder: Folder
    python: Path | None = None

    @property
    def table(self) -> Path:
        """The table of trainings."""
        return self.checkout / "benchmarks" / "training_queue.toml"

    @property
    def weights(self) -> Path:
        """Where models go that ship."""
        return self.checkout / "weights"

    @property
    def figures(self) -> Path:
        """Where the figures of finished trainings go."""
        return self.checkout / "benchmarks" / "trained"

    def covseg(self, command: Sequence[str], threads: int, name: str) -> list[str]:
        """Return the command line of a training."""
        filled = [word.replace("{out}", str(self.folder.path)).replace("{name}", name) for word in command]
        options = {"--out": "safetensors", "--checkpoint": "checkpoint"}
        if "--task" in filled:  # a last layer has none, it begins again
            del options["--checkpoint"]
        for option, suffix in options.items():
            filled += [option, str(self.folder.file(name, suffix))]
        python = str(self.python or self.folder.python)
        return [python, "-m", "napari_covseg.cli", *filled, "--threads", str(threads)]

    @property
    def at(self) -> Path:
        """Where trainings run: paths in their commands start here."""
        return self.checkout if self.python else self.folder.worktree


class Queue:
    """Trains what the table lists, until all is done; the process that ``make trained`` leaves behind."""

    def __init__(self, places: Places, cores: int, adapt: bool) -> None:
        self.places, self.folder = places, places.folder
        self.cores, self.adapt = cores, adapt
        self.load = OtherLoad()
        self.ending = False
        self._said: dict[str, Any] = {}

    def work(self) -> None:
        """Train until nothing is left, or until SIGTERM."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end)
        os.nice(self.folder.nice)
        group_priority(self.folder.nice)
        self.say("starting")
        clear_training(self.folder)
        while not self.ending:
            self.load.sample(None)
            if self.folder.paused.exists():
                self.say("paused")
                time.sleep(LOOK)
                continue
            try:
                training = next_training(read_table(self.places.table), self.folder)
            except JobError as error:  # somebody is editing it
                log(str(error))
                self.wait(10)
                continue
            if training is None:
                log("Nothing is left to train.")
                break
            self.train(training)

    def wait(self, seconds: float) -> None:
        """Wait, unless the queue is to end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.ending:
            time.sleep(LOOK)

    def say(self, state: str, name: str = "", child: int = 0, threads: int = 0) -> None:
        """Write what the queue is at, for the status, where that has changed."""
        said = {"state": state, "training": name, "child": child, "threads": threads}
        if said != self._said:
            self._said = said
            write_json(self.folder.path / "queue.json", {**said, "pid": os.getpid(), "time": time.time()})

    def train(self, training: Training) -> None:
        """Begin a training or go on with it, until it ends or has to stop."""
        name, folder = training.name, self.folder
        record = folder.record(name)
        if record is None:
            folder.file(name, "safetensors").unlink(missing_ok=True)  # of a training nothing is known of
            threads = threads_for(self.load.cores(), self.cores)
            record = Record("begun", pinned(self.places), list(training.command), threads)
        if self.places.python is None:
            self.say("preparing", name)
            try:
                with usual_priority(self.folder.nice):
                    place_worktree(self.places, record.commit)
            except (JobError, subprocess.CalledProcessError, OSError) as error:
                raise SystemExit(f"The environment for {name} cannot be made: {error}") from error
        record.state, record.step = "begun", int(folder.progress(name).get("step", 0))
        record.threads = min(record.threads, self.cores)  # more than there are wait for each other
        folder.keep(name, record)
        log(f"{name}: from step {record.step} with {record.threads} threads, commit {record.commit[:10]}")
        begun = time.monotonic()
        code, asked = self._process(name, record)
        record.seconds += time.monotonic() - begun
        self._conclude(training, record, code, asked)
        folder.keep(name, record)
        self.say("between")
        log(f"{name}: {record.state}, exit code {code}{', stopped' if asked else ''}. {record.error}".strip())
        if record.state == "done":
            try:
                ship(self.places, training, record)
            except (JobError, ModelError, OSError) as error:
                log(f"{name}: not shipped. {error}")

    def _process(self, name: str, record: Record) -> tuple[int, bool]:
        """Run the training process; return its exit code, and whether the queue has stopped it."""
        command = self.places.covseg(record.command, record.threads, name)
        environment = own_environment() | {"OMP_NUM_THREADS": str(record.threads)}
        with training_lock(self.folder) as lock, self.folder.file(name, "log").open("ab") as output:
            child = subprocess.Popen(
                command,
                cwd=self.places.at,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),  # it holds the lock until it ends, also when the queue is killed
                process_group=0,  # in the queue's session, whose priority is the lowest
                preexec_fn=_end_with_parent,
            )
            os.pwrite(lock, f"{child.pid:<20}\n".encode(), 0)
            return self._watch(child, name, record)

    def _watch(self, child: subprocess.Popen[bytes], name: str, record: Record) -> tuple[int, bool]:
        frozen, fits = False, time.monotonic()
        while True:
            code = child.poll()
            if code is not None:
                return code, False
            if frozen != self.folder.frozen.exists():
                frozen = not frozen
                os.killpg(child.pid, signal.SIGSTOP if frozen else signal.SIGCONT)
            self.say("frozen" if frozen else "running", name, child.pid, record.threads)
            if self.ending or self.folder.paused.exists():
                return stop(child, self.folder.nice), True
            self.load.sample(child.pid)
            better = threads_for(self.load.cores(), self.cores)
            if frozen or better == record.threads or not self.adapt:
                fits = time.monotonic()
            elif time.monotonic() - fits > OTHER_THREADS:
                record.threads = better
                return stop(child, self.folder.nice), True
            time.sleep(LOOK)

    def _conclude(self, training: Training, record: Record, code: int, asked: bool) -> None:
        """Say what has become of a training whose process has ended."""
        folder, name = self.folder, training.name
        if code == 0 and folder.file(name, "safetensors").is_file():
            record.state, record.finished = "done", time.time()
        elif code > 0 and not asked:
            record.state, record.error = "failed", folder.last_line(name) or f"exit code {code}"
        elif not asked:  # killed, or stopped by somebody else: go on, unless that leads nowhere
            moved = int(folder.progress(name).get("step", 0)) > record.step
            record.fruitless = 0 if moved else record.fruitless + 1
            if record.fruitless >= TRIES:
                record.state = "failed"
                last = folder.last_line(name)
                record.error = f"ended {TRIES} times without a step (exit code {code}): {last}"

    def _on_end(self, number: int, frame: object) -> None:
        self.ending = True


def next_training(trainings: Sequence[Training], folder: Folder) -> Training | None:
    """Return the training to go on with: one that has begun, else the first that may begin."""
    states = {training.name: folder.record(training.name) for training in trainings}
    begun = [one for one in trainings if (record := states[one.name]) and record.state == "begun"]
    done = {name for name, record in states.items() if record and record.state == "done"}
    ready = [one for one in trainings if states[one.name] is None and done.issuperset(one.needs)]
    return next(iter(begun + ready), None)


def stop(child: subprocess.Popen[bytes], nice: int) -> int:
    """End a training process with its checkpoint written; kill it where that takes too long."""
    with usual_priority(nice):  # a step at the lowest priority may take minutes on a busy machine
        child.terminate()
        os.killpg(child.pid, signal.SIGCONT)
        try:
            return child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            log(f"process {child.pid} has not ended after {PATIENCE:.0f} s: killed")
            os.killpg(child.pid, signal.SIGKILL)
            return child.wait()


def group_priority(nice: int, process: int | str = "self") -> None:
    """Set the priority of the queue's session with all that runs in it.

    Linux shares the processor between sessions first (autogroups); `os.nice` then counts only
    within a session. Elsewhere it counts everywhere, and this does nothing.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{process}/autogroup").write_text(str(nice))


@contextlib.contextmanager
def usual_priority(nice: int) -> Iterator[None]:
    """Let the queue's session be as urgent as others for a short time, then `nice` again."""
    group_priority(0)
    try:
        yield
    finally:
        group_priority(nice)


@contextlib.contextmanager
def training_lock(folder: Folder) -> Iterator[int]:
    """Hold the lock of the training process; two on one checkpoint would destroy it."""
    lock = os.open(folder.path / "training.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.ftruncate(lock, 0)
        yield lock
    finally:
        os.close(lock)


def clear_training(folder: Folder) -> None:
    """End the training process of a queue that was killed, if it still runs."""
    path = folder.path / "training.lock"
    if not path.is_file():
        return
    with path.open("rb") as file:
        begun, signals = time.monotonic(), [signal.SIGKILL, signal.SIGTERM]
        while not taken(file, fcntl.LOCK_EX):  # it lives
            if signals and (len(signals) == 2 or time.monotonic() - begun > PATIENCE):
                number = signals.pop()
                log(f"{number.name} to the training process of a queue that was killed")
                file.seek(0)
                with contextlib.suppress(ValueError, ProcessLookupError):
                    process = int(file.read())
                    os.killpg(process, number)
                    os.killpg(process, signal.SIGCONT)
            time.sleep(LOOK)


_C = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Let the system send SIGTERM to the training process when the queue dies."""
    if _C is not None:
        _C.prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG


def own_environment() -> dict[str, str]:
    """Return the environment of what runs in the pinned environment: its own packages only."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def log(line: str) -> None:
    """Write a line with the time; the queue's output is ``queue.log``."""
    print(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {line}", flush=True)


# Pinned code -----------------------------------------------------------------------------------


def pinned(places: Places) -> str:
    """Return the commit that new trainings begin with; empty where nothing is pinned.

    With a Python of one's own they run in the checkout as it is, whatever is pinned.
    """
    if places.python is not None:
        return git(places.checkout, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    path = places.folder.path / "pin"
    return path.read_text().strip() if path.is_file() else ""


def pin(places: Places, revision: str) -> str:
    """Pin a commit for the trainings that have not begun, and return it.

    Raises
    ------
    JobError
        If git does not know it.
    """
    commit = git(places.checkout, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", check=False)
    if not commit:
        raise JobError(f"git knows no commit {revision!r} in {places.checkout}: name another with PIN=.")
    write_text(places.folder.path / "pin", commit + "\n")
    return commit


def place_worktree(places: Places, commit: str) -> None:
    """Put the worktree at a commit, with an environment that fits it."""
    folder, tree = places.folder, places.folder.worktree
    top = git(tree, "rev-parse", "--show-toplevel", check=False) if tree.is_dir() else ""
    if top != str(tree):
        shutil.rmtree(tree, ignore_errors=True)
        git(places.checkout, "worktree", "prune")
        git(places.checkout, "worktree", "add", "--force", "--detach", str(tree), commit)
    elif git(tree, "rev-parse", "HEAD") != commit:
        git(tree, "checkout", "--force", "--detach", commit)
    needs = b"".join((tree / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    made, fits = folder.path / ".venv" / "made", hashlib.sha256(needs).hexdigest()
    if not made.is_file() or made.read_text() != fits:
        log(f"making the environment of commit {commit[:10]}: a few minutes")
        if not made.is_file():  # what is there, if anything, is half an environment
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(made.parent)], check=True)
        pip = ["-m", "pip", "install", "--disable-pip-version-check", "-qq"]
        pip += ["--no-compile", "--constraint", "constraints.txt", "--editable", ".[train]"]
        run_there(places, *pip)
        write_text(made, fits)
    if (tree / PHANTOMS).is_file():  # older code makes its own while it trains
        run_there(places, PHANTOMS)


def run_there(places: Places, *words: str) -> None:
    """Run the pinned Python in the worktree; raises CalledProcessError."""
    command = [str(places.folder.python), *words]
    subprocess.run(
        command, cwd=places.folder.worktree, env=own_environment(), check=True, preexec_fn=_end_with_parent
    )


def git(where: Path, *words: str, check: bool = True) -> str:
    """Return what git prints; raises JobError where it fails and `check` is true."""
    ended = subprocess.run(["git", "-C", str(where), *words], capture_output=True, text=True)
    if check and ended.returncode:
        raise JobError(f"git {' '.join(words)} fails in {where}: {ended.stderr.strip()}")
    return ended.stdout.strip()


# What is finished ------------------------------------------------------------------------------


def ship(places: Places, training: Training, record: Record) -> None:
    """Keep the figures of a finished training, and its model where it is to ship.

    Raises
    ------
    JobError, ModelError
        If its file is no model, or one that is not in half precision.
    """
    model = places.folder.file(training.name, "safetensors")
    card = read_card(model)
    keep_figures(places, training, record, card)
    if training.ship:
        wrong = full_precision(model)
        if wrong:
            raise JobError(f"{model} holds {wrong} weights: let covseg train write half precision.")
        places.weights.mkdir(exist_ok=True)
        target = places.weights / model.name
        with replacing(target) as part:
            shutil.copyfile(model, part)


def keep_figures(places: Places, training: Training, record: Record, card: ModelCard) -> None:
    """Write what a training reached, and how."""
    progress = places.folder.progress(training.name)
    places.figures.mkdir(parents=True, exist_ok=True)
    figures = {
        "name": training.name,
        "note": training.note,
        "commit": record.commit,
        # A file of this machine is named, not placed: the figures go elsewhere.
        "command": ["covseg", *(Path(w).name if Path(w).is_absolute() else w for w in record.command)],
        "threads": record.threads,
        "minutes": round(progress.get("seconds", record.seconds) / 60, 1),
        "step": progress.get("step"),
        "steps": progress.get("steps"),
        "finished": record.state == "done",
        "outputs": card.outputs,
        "thresholds": card.thresholds,
        "split": card.split,
        "scores": card.scores,
    }
    write_json(places.figures / f"{training.name}.json", figures)


def full_precision(model: Path) -> str:
    """Return the name of a floating-point type in a model file that is not half precision, or nothing."""
    with model.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    kinds = {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"}
    return ", ".join(sorted(kind for kind in kinds if re.match("B?F", kind) and kind != "F16"))


def export(places: Places, name: str) -> Path:
    """Write the averaged weights of a training that has begun as a model among those that ship.

    Raises
    ------
    JobError
        If it has not begun, the worktree has moved on, or ``covseg train`` fails.
    """
    training = find(places, name)
    record = places.folder.record(name)
    if record is None or not places.folder.file(name, "checkpoint").is_file():
        raise JobError(f"The training {name} has no checkpoint yet: wait until it has begun.")
    if places.python is None and git(places.at, "rev-parse", "HEAD") != record.commit:
        raise JobError(f"The worktree is at another commit than {name}: export it while it trains.")
    places.weights.mkdir(exist_ok=True)
    target = places.weights / f"{name}.safetensors"
    command = places.covseg([*record.command, "--export-average", str(target)], 1, name)
    ended = subprocess.run(command, cwd=places.at, env=own_environment(), capture_output=True, text=True)
    if ended.returncode or not target.is_file():
        raise JobError(f"{name} cannot be exported: {(ended.stderr or ended.stdout).strip()[-500:]}")
    keep_figures(places, training, record, read_card(target))
    return target


def find(places: Places, name: str) -> Training:
    """Return a training of the table by name; raises JobError."""
    trainings = {training.name: training for training in read_table(places.table)}
    if name not in trainings:
        raise JobError(
            f"There is no training {name!r} in {places.table}: name one of {', '.join(trainings)}."
        )
    return trainings[name]


# Status ----------------------------------------------------------------------------------------


@dataclass
class Row:
    """A line of the status; times in seconds, `end` as Unix time."""

    name: str
    state: str
    steps: str = ""
    rate: str = ""
    minutes: str = ""
    end: str = ""
    remark: str = ""
    left: float = field(default=0.0, repr=False)


def status(places: Places, now: float) -> str:
    """Return a table of all trainings, for a person; `now` is the Unix time."""
    folder = places.folder
    queue = folder.queue()
    trainings = read_table(places.table)
    records = {training.name: folder.record(training.name) for training in trainings}
    lost = _never(trainings, records)
    rows = [row_of(places, one, records[one.name], queue, lost.get(one.name, "")) for one in trainings]
    going = [row for row in rows if row.left and row.state not in ("waiting", "blocked")]
    end = now
    for row in going + [row for row in rows if row.state == "waiting"]:  # in the order of next_training
        end += row.left
        row.end = when(end, now)
    head = Row("training", "state", "steps", "steps/s", "minutes", "end", "")
    columns = ("name", "state", "steps", "rate", "minutes", "end")
    widths = {key: max(len(getattr(row, key)) for row in [head, *rows]) for key in columns}
    lines = [_headline(queue, folder, pinned(places))]
    for row in [head, *rows]:
        cells = [getattr(row, key).ljust(widths[key]) for key in columns]
        lines.append("  ".join([*cells, row.remark]).rstrip())
    counts = collections.Counter(row.state for row in rows)
    lines.append(", ".join(f"{count} {state}" for state, count in counts.items()))
    hours = (end - now) / 3600
    if hours:
        lines[-1] += f"; {hours:.1f} hours to go, until {when(end, now)}"
    size = sum(file.stat().st_size for file in places.weights.glob("*.safetensors"))
    much = ", too much" if size > WEIGHTS else ""
    lines.append(f"weights: {size / 1e6:.1f} of {WEIGHTS / 1e6:.0f} MB{much}")
    return "\n".join(lines)


def row_of(
    places: Places, training: Training, record: Record | None, queue: Mapping[str, Any], lost: str
) -> Row:
    """Return the line of a training; `lost` names a failed training that it needs."""
    name, estimate = training.name, training.minutes * 60
    if record is None:
        if lost:
            return Row(name, "blocked", remark=f"needs {lost}")
        return Row(name, "waiting", minutes=f"{training.minutes:.0f}?", left=estimate)
    progress = places.folder.progress(name)
    step, steps = progress.get("step", 0), progress.get("steps", 0)
    seconds = float(progress.get("seconds", record.seconds))
    row = Row(name, record.state, f"{step}/{steps}" if steps else "", minutes=f"{seconds / 60:.0f}")
    if step and seconds:
        row.rate = f"{step / seconds:.2f}"
    if record.state == "done":
        row.remark = figures_of(places.folder.file(name, "safetensors"))
        row.end = when(record.finished, time.time())
    elif record.state == "failed":
        row.remark = record.error
    else:
        current = queue.get("training") == name
        row.state = queue["state"] if current else "begun"
        known = step and steps and seconds
        row.left = (steps - step) * seconds / step if known else max(60.0, estimate - seconds)
        if current and queue.get("threads"):
            share = share_of(queue["child"])
            row.remark = f"{queue['threads']} threads, process {queue['child']}{share}"
        if "loss" in progress:
            row.remark = f"loss {progress['loss']:.4f}  {row.remark}".strip()
    return row


def share_of(process: int) -> str:
    """Return how much of a core a process has had since it began, in words; empty if not known."""
    try:
        ticks = os.sysconf("SC_CLK_TCK")
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0]) - int(stat[19]) / ticks
        return f" with {(int(stat[11]) + int(stat[12])) / ticks / max(up, 1):.0%} of a core"
    except (OSError, ValueError, IndexError):
        return ""


def figures_of(model: Path) -> str:
    """Return the main figures on a model's card: the first part of its scores that has any."""
    try:
        scores = read_card(model).scores
    except ModelError as error:
        return str(error)
    for part in ("test", "validation", *scores):
        values = scores.get(part)
        if isinstance(values, dict):
            numbers = [f"{key} {value:.3f}" for key, value in values.items() if isinstance(value, float)]
            if numbers:
                return f"{part}: {', '.join(numbers)}"
    return ""


def when(time_: float, now: float) -> str:
    """Return a time of the next or last day as 14:05, another with its date."""
    far = abs(time_ - now) > 20 * 3600
    return datetime.datetime.fromtimestamp(time_).strftime("%d %b %H:%M" if far else "%H:%M")


def _never(trainings: Sequence[Training], records: Mapping[str, Record | None]) -> dict[str, str]:
    """Return the trainings that wait for a failed one, with its name."""
    lost: dict[str, str] = {}
    for training in trainings:
        for need in training.needs:
            record = records[need]
            if need in lost or (record is not None and record.state == "failed"):
                lost[training.name] = lost.get(need, need)
    return lost


def _headline(queue: Mapping[str, Any], folder: Folder, commit: str) -> str:
    pin_ = f"; new trainings begin with commit {commit[:10]}" if commit else ""
    waits = " (paused: make trained-resume)" if folder.paused.exists() else ""
    if not queue:
        return f"The queue does not run{waits or ': make trained'}. {folder.last_line('queue')}".strip()
    return f"The queue is {queue['state']}{waits}, process {queue['pid']}{pin_}"


# Commands --------------------------------------------------------------------------------------


def start(places: Places, options: Sequence[str]) -> str:
    """Start the queue in the background, unless it runs; return what to tell."""
    folder = places.folder
    if folder.queue():
        return "The queue runs already.\n" + status(places, time.time())
    data = os.environ.get("COVSEG_DATA", "")
    if not data or not Path(data).is_dir():
        raise JobError("$COVSEG_DATA names no folder: set it to the folder of the data, then start again.")
    read_table(places.table)
    with (folder.path / "queue.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, "work", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "COVSEG_DATA": str(Path(data).resolve())},
            start_new_session=True,
        )
    until = time.monotonic() + 30
    while process.poll() is None and folder.queue().get("pid") != process.pid and time.monotonic() < until:
        time.sleep(0.02)
    return status(places, time.time())


def work(places: Places, cores: int, adapt: bool) -> None:
    """Be the queue."""
    with (places.folder.path / "queue.lock").open("wb") as file:
        for left in reversed(range(20)):
            if taken(file, fcntl.LOCK_EX):
                break
            if not left:  # another queue, not a status that looks
                raise SystemExit("The queue runs already.")
            time.sleep(0.05)
        (places.folder.path / "queue.json").unlink(missing_ok=True)
        Queue(places, cores, adapt).work()


def pause(places: Places, freeze: bool) -> str:
    """Stop the training process, or let it stand still; wait until it does."""
    folder = places.folder
    (folder.frozen if freeze else folder.paused).touch()
    wanted = ("frozen", "paused") if freeze else ("paused",)
    until = time.monotonic() + PATIENCE + 15
    while time.monotonic() < until:
        queue = folder.queue()
        if not queue or queue["state"] in wanted or (freeze and not queue["child"]):
            return "Nothing trains until make trained-resume."
        time.sleep(0.05)
    return f"The queue is still {queue['state']} and pauses as soon as it can: look with make trained-status."


def resume(places: Places, options: Sequence[str]) -> str:
    """Let the queue go on; start it where it does not run."""
    folder = places.folder
    folder.frozen.unlink(missing_ok=True)
    folder.paused.unlink(missing_ok=True)
    if not folder.queue():
        return start(places, options)
    until = time.monotonic() + 10
    while folder.queue().get("state") in ("paused", "frozen") and time.monotonic() < until:
        time.sleep(0.05)
    return status(places, time.time())


def retry(places: Places, name: str) -> str:
    """Let a failed training begin again, from its checkpoint if it has one."""
    find(places, name)
    record = places.folder.record(name)
    if record is None or record.state != "failed":
        raise JobError(f"The training {name} has not failed: there is nothing to try again.")
    places.folder.file(name, "run.json").unlink()
    return f"{name} is tried again when its turn comes."


def restart(places: Places, name: str) -> str:
    """Forget what a training has reached: it begins anew, with the pinned commit."""
    find(places, name)
    folder = places.folder
    stopped = folder.queue().get("training") == name and not folder.paused.exists()
    if stopped:
        pause(places, freeze=False)
    folder.forget(name)
    if stopped:
        folder.paused.unlink()
    return f"{name} begins anew when its turn comes."


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Keep a queue of trainings going beside all other work.")
    parser.add_argument("command", choices=["start", "work", "pause", "resume", "status", "retry", "export"])
    parser.add_argument("name", nargs="?", help="training, for retry and export")
    parser.add_argument("--pin", help="commit that trainings begin with; HEAD when first started")
    parser.add_argument("--restart", metavar="NAME", help="training that begins anew")
    parser.add_argument("--freeze", action="store_true", help="pause without a checkpoint, for short timings")
    parser.add_argument("--adapt", action="store_true", help="change threads in a training as cores get idle")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="threads at most")
    parser.add_argument("--nice", type=int, help="priority from now on; at first 19, the lowest")
    parser.add_argument("--checkout", type=Path, default=CHECKOUT, help="has the table, gets the weights")
    parser.add_argument("--folder", type=Path, help="by default trained-weights in the checkout")
    parser.add_argument("--python", type=Path, help="trains instead of the pinned environment")
    given = parser.parse_args()
    folder = (given.folder or given.checkout / "trained-weights").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    places = Places(given.checkout.resolve(), Folder(folder), given.python)
    options = [f"--checkout={places.checkout}", f"--folder={folder}", f"--cores={given.cores}"]
    options += ["--adapt"] * given.adapt + [f"--python={given.python}"] * (given.python is not None)
    try:
        print(_run(given, places, options), end="")
    except JobError as error:
        raise SystemExit(str(error)) from None


def _run(given: argparse.Namespace, places: Places, options: Sequence[str]) -> str:
    if given.command == "work":
        work(places, given.cores, given.adapt)
        return ""
    if given.command in ("retry", "export") and not given.name:
        raise JobError(f"Which training? Give its name: {given.command} NAME.")
    told = []
    if given.command == "start":
        if given.nice is not None:
            write_text(places.folder.path / "nice", str(given.nice))
            if queue := places.folder.queue():
                group_priority(given.nice, queue["pid"])
        if places.python is None and (given.pin or not pinned(places)):
            pin(places, given.pin or "HEAD")
        if given.restart:
            told.append(restart(places, given.restart))
        told.append(start(places, options))
    elif given.command == "pause":
        told.append(pause(places, given.freeze))
    elif given.command == "resume":
        told.append(resume(places, options))
    elif given.command == "status":
        told.append(status(places, time.time()))
    elif given.command == "retry":
        told.append(retry(places, given.name))
    else:
        told.append(str(export(places, given.name)))
    return "\n".join(told) + "\n"


if __name__ == "__main__":
    main()
