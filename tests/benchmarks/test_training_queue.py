"""The queue of trainings, with a program in the place of Python that trains nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from napari_covseg.errors import JobError
from napari_covseg.models.card import ModelCard

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_queue.py"
DEADLINE = 150.0  # the queue works at the lowest priority beside the other tests

# A step is to multiply and add; each loss goes into a file that shows what was computed twice. It
# stands still at the step that a file NAME.gate says, and fails at once while NAME.broken is there.
FAKE = """#!{python} -IS
import json, os, signal, struct, sys, time
words = sys.argv[3:]
options = dict(zip(words[1::2], words[2::2]))
out, checkpoint = options["--out"], options["--checkpoint"]
stem = checkpoint[: -len(".checkpoint")]
if os.path.exists(stem + ".broken"):
    print("first line"); print("the data is not there"); sys.exit(2)
ended = False
def on_end(*_):
    global ended
    ended = True
signal.signal(signal.SIGTERM, on_end)
def write(path, data):
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.replace(path + ".new", path)
def model(path):
    weight = {{"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}
    header = json.dumps({{"__metadata__": {{"card": {card!r}}}, "w": weight}})
    write(path, struct.pack("<Q", len(header)) + header.encode() + b"\\0\\0")
state = json.load(open(checkpoint)) if os.path.exists(checkpoint) else {{"step": 0, "value": 1}}
if "--export-average" in options:
    model(options["--export-average"]); sys.exit(0)
steps = int(options["--steps"])
print("threads", options["--threads"], os.environ["OMP_NUM_THREADS"], "nice", os.nice(0), flush=True)
while state["step"] < steps and not ended:
    gate = stem + ".gate"
    if os.path.exists(gate) and state["step"] >= int(open(gate).read() or 0):
        time.sleep(0.005)
        continue
    state["value"] = (state["value"] * 1103515245 + 12345) % 2**31
    state["step"] += 1
    with open(stem + ".losses", "a") as file:
        file.write("%d %d\\n" % (state["step"], state["value"]))
    if state["step"] % 5 == 0:
        write(checkpoint, json.dumps(state).encode())
    progress = {{"step": state["step"], "steps": steps, "seconds": 0.5 * state["step"], "loss": 0.25}}
    write(checkpoint + ".progress", json.dumps(progress).encode())
write(checkpoint, json.dumps(state).encode())
if state["step"] == steps:
    model(out)
"""

CARD = ModelCard(
    id="fake",
    title="Fake",
    summary="Nothing.",
    network={"name": "unet", "settings": {}},
    preparation={},
    outputs=("lungs", "lesion"),
    thresholds={"lungs": 0.5, "lesion": 0.5},
    scores={"test": {"lungs": 0.979, "lesion": 0.681, "protocol": "none"}},
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training_queue", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["training_queue"] = module
    spec.loader.exec_module(module)
    return module


class Desk:
    """A checkout with a table, and the commands of the queue on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkout, self.folder = path / "checkout", path / "folder"
        (self.checkout / "benchmarks").mkdir(parents=True)
        self.folder.mkdir()
        self.fake = path / "fake"
        self.fake.write_text(FAKE.format(python=sys.executable, card=CARD.to_json()))
        self.fake.chmod(0o755)

    def table(self, text: str) -> None:
        (self.checkout / "benchmarks" / "training_queue.toml").write_text(text)

    def run(self, *words: str, fails: bool = False) -> str:
        # Hardly less urgent than the tests beside it, so that a busy machine does not make it wait.
        where = [f"--checkout={self.checkout}", f"--folder={self.folder}", f"--python={self.fake}"]
        where += ["--cores=1", "--nice=1"]
        ended = subprocess.run(
            [sys.executable, str(SCRIPT), *words, *where],
            capture_output=True,
            text=True,
            env=os.environ | {"COVSEG_DATA": str(self.path)},
            timeout=DEADLINE,
        )
        assert bool(ended.returncode) == fails, ended.stderr
        return ended.stderr if fails else ended.stdout

    def read(self, name: str) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            return {}
        return values

    def state(self, name: str) -> str | None:
        return self.read(f"{name}.run.json").get("state")

    def step(self, name: str) -> int:
        return int(self.read(f"{name}.checkpoint.progress").get("step", 0))

    def gate(self, name: str, step: int | None) -> None:
        gate = self.folder / f"{name}.gate"
        if step is None:
            gate.unlink()
        else:
            gate.with_suffix(".new").write_text(str(step))
            gate.with_suffix(".new").replace(gate)

    def losses(self, name: str) -> list[tuple[int, int]]:
        lines = (self.folder / f"{name}.losses").read_text().splitlines()
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]


def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.02)


def alive(process: int) -> bool:
    """Return whether a process computes: it is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def desk(script: ModuleType, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    (desk.folder / "paused").unlink(missing_ok=True)
    running = script.Folder(desk.folder).queue()
    if running:
        os.kill(running["pid"], signal.SIGTERM)
        until(lambda: not script.Folder(desk.folder).queue())


ONE = """
[[training]]
name = "one"
command = ["train", "--steps", "20"]
ship = true
note = "Quick."
"""


def test_it_trains_all_in_the_order_of_the_table_and_of_needs(desk: Desk) -> None:
    desk.table(
        """
        [[training]]
        name = "body"
        folds = [1, 2]
        command = ["train", "--steps", "3", "--fold", "{fold}"]

        [[training]]
        name = "later"
        command = ["train", "--steps", "3", "--from", "{out}/body-fold2.safetensors"]
        needs = ["body"]

        [[training]]
        name = "early"
        command = ["train", "--steps", "3"]
        """
    )
    desk.run("start")
    until(lambda: desk.state("early") == "done" and not desk.run("status").startswith("The queue is"))
    finished = {
        name: desk.read(f"{name}.run.json")["finished"]
        for name in ("body-fold1", "body-fold2", "later", "early")
    }
    assert sorted(finished, key=finished.__getitem__) == list(finished)
    assert desk.read("body-fold2.run.json")["command"][-1] == "2"
    assert (desk.folder / "one.log").exists() is False
    assert not (desk.checkout / "weights").exists()
    assert f"threads 1 1 nice {os.nice(0) + 1}\n" in (desk.folder / "later.log").read_text()


def test_a_finished_model_is_shipped_with_its_figures(desk: Desk) -> None:
    desk.table(ONE.replace('"20"', f'"20", "--start-from", "{desk.path}/first.safetensors"'))
    desk.run("start")
    figures = desk.checkout / "benchmarks" / "trained" / "one.json"
    until(lambda: (desk.checkout / "weights" / "one.safetensors").exists())
    assert json.loads(figures.read_text())["scores"] == CARD.scores
    assert json.loads(figures.read_text()) | {
        "minutes": 0.2,
        "steps": 20,
        "finished": True,
        "note": "Quick.",
    } == (json.loads(figures.read_text()))
    assert str(desk.path) not in figures.read_text(), "where it ran is nobody's business"
    assert "first.safetensors" in json.loads(figures.read_text())["command"]
    shown = desk.run("status")
    assert "20/20" in shown and "test: lungs 0.979, lesion 0.681" in shown and "1 done" in shown


def test_a_pause_computes_nothing_and_outlives_the_queue(desk: Desk) -> None:
    desk.table(ONE)
    desk.gate("one", 7)
    desk.run("start")
    until(lambda: desk.step("one") == 7)
    queue = desk.read("queue.json")
    assert "The queue runs already" in desk.run("start")
    shown = desk.run("status")
    assert f"process {queue['child']}" in shown and "7/20" in shown and "2.00" in shown

    desk.run("pause")
    assert not alive(queue["child"]) and alive(queue["pid"])
    assert desk.read("one.checkpoint")["step"] == 7  # written at the end, not at 5
    desk.gate("one", None)
    os.kill(queue["pid"], signal.SIGTERM)
    until(lambda: not alive(queue["pid"]))
    assert "paused" in desk.run("start")
    assert desk.state("one") == "begun" and desk.step("one") == 7
    begun = desk.read("one.run.json") | {"threads": 2}  # as where it was begun on both cores
    (desk.folder / "one.run.json").write_text(json.dumps(begun))

    desk.run("resume")
    until(lambda: desk.state("one") == "done")
    assert [step for step, _ in desk.losses("one")] == list(range(1, 21))
    assert "threads 2" not in (desk.folder / "one.log").read_text(), "--cores=1"


def test_a_frozen_training_goes_on_in_the_same_process(desk: Desk) -> None:
    desk.table(ONE)
    desk.gate("one", 3)
    desk.run("start")
    until(lambda: desk.step("one") == 3)
    child = desk.read("queue.json")["child"]
    desk.run("pause", "--freeze")
    until(lambda: Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    desk.gate("one", None)
    desk.run("resume")
    until(lambda: desk.state("one") == "done")
    assert len(desk.losses("one")) == 20


@pytest.mark.parametrize("killed", ["queue", "training", "both"])
def test_a_kill_costs_only_what_came_after_the_checkpoint(desk: Desk, killed: str) -> None:
    desk.table(ONE)
    desk.gate("one", 8)
    desk.run("start")
    until(lambda: desk.step("one") == 8)
    queue = desk.read("queue.json")
    for process in {"queue": ["pid"], "training": ["child"], "both": ["pid", "child"]}[killed]:
        os.kill(queue[process], signal.SIGKILL)
    until(lambda: not alive(queue["child"]))  # it does not go on without its queue
    desk.gate("one", None)
    if killed != "training":
        desk.run("start")
    until(lambda: desk.state("one") == "done")
    losses = desk.losses("one")
    again = [6, 7, 8] if killed != "queue" else []  # SIGTERM, by the death of the queue: a checkpoint at 8
    assert [step for step, _ in losses] == [*range(1, 9), *again, *range(9, 21)]
    assert len(set(losses)) == 20  # what was computed twice is the same


def test_a_failure_is_skipped_shown_and_tried_again(desk: Desk) -> None:
    desk.table(
        ONE
        + """
        [[training]]
        name = "two"
        command = ["train", "--steps", "4"]

        [[training]]
        name = "three"
        command = ["train", "--steps", "4"]
        needs = ["one"]
        minutes = 90
        """
    )
    (desk.folder / "one.broken").touch()
    desk.run("start")
    until(lambda: desk.state("two") == "done")
    shown = desk.run("status").splitlines()
    assert any(line.startswith("one") and line.endswith("the data is not there") for line in shown)
    assert any(line.startswith("three") and "needs one" in line for line in shown)
    assert "two" in desk.run("retry", "two", fails=True)

    (desk.folder / "one.broken").unlink()
    desk.run("retry", "one")
    desk.run("start")
    until(lambda: desk.state("three") == "done")


def test_what_ends_again_and_again_without_a_step_has_failed(desk: Desk) -> None:
    desk.table(ONE)
    desk.gate("one", 0)
    desk.run("start")
    seen: set[int] = set()
    while desk.state("one") != "failed":
        until(
            lambda: (
                desk.state("one") == "failed" or desk.read("queue.json").get("child") not in {None, 0, *seen}
            )
        )
        child = desk.read("queue.json").get("child")
        if child and child not in seen:
            seen.add(child)
            os.kill(child, signal.SIGKILL)
    assert len(seen) == 3
    assert "without a step" in desk.run("status")


def test_restart_begins_anew(desk: Desk) -> None:
    desk.table(ONE)
    desk.gate("one", 5)
    desk.run("start")
    until(lambda: desk.step("one") == 5)
    assert "anew" in desk.run("start", "--restart", "one")
    until(lambda: len(desk.losses("one")) == 10)
    assert [step for step, _ in desk.losses("one")] == [*range(1, 6), *range(1, 6)]


def test_an_unfinished_training_is_exported(desk: Desk) -> None:
    desk.table(ONE)
    assert "no checkpoint" in desk.run("export", "one", fails=True)
    desk.gate("one", 6)
    desk.run("start")
    until(lambda: desk.step("one") == 6)
    desk.run("export", "one")
    assert (desk.checkout / "weights" / "one.safetensors").exists()
    figures = json.loads((desk.checkout / "benchmarks" / "trained" / "one.json").read_text())
    assert (figures["step"], figures["finished"]) == (6, False)


def test_without_data_it_does_not_start(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.table(ONE)
    desk.path = desk.path / "nowhere"
    assert "$COVSEG_DATA" in desk.run("start", fails=True)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[[training]]\nname = 'Big one'\ncommand = ['train']", "no name"),
        ("[[training]]\nname = 'one'", "no command"),
        ("[[training]]\nname = 'one'\ncommand = ['train', '--out', 'x']", "--out"),
        ("[[training]]\nname = 'one'\ncommand = ['train']\nhours = 3", "hours"),
        ("[[training]]\nname = 'one'\ncommand = ['train']\nneeds = ['two']", "two"),
        (ONE + ONE, "twice"),
        ("[[training", "cannot be read"),
    ],
)
def test_a_wrong_table_is_refused(script: ModuleType, tmp_path: Path, text: str, wrong: str) -> None:
    path = tmp_path / "table.toml"
    path.write_text(text)
    with pytest.raises(JobError, match=wrong):
        script.read_table(path)


def test_the_table_of_the_project_is_whole(script: ModuleType) -> None:
    assert script.read_table(SCRIPT.with_suffix(".toml"))


def test_the_worktree_follows_the_commit_and_is_made_again(script: ModuleType, tmp_path: Path) -> None:
    checkout, folder = tmp_path / "checkout", tmp_path / "folder"
    checkout.mkdir()
    (folder / ".venv").mkdir(parents=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    script.git(checkout, "init", "--quiet")
    commits = []
    for content in ("old", "new"):
        for name, text in (("code", content), ("pyproject.toml", "p"), ("constraints.txt", "c")):
            (checkout / name).write_text(text)
        if content == "new":
            (checkout / "sample_data").mkdir()
            (checkout / script.PHANTOMS).write_text("open('phantoms', 'w').close()")
        script.git(checkout, "add", ".")
        script.git(checkout, *who, "commit", "--quiet", "-m", content)
        commits.append(script.git(checkout, "rev-parse", "HEAD"))
    (folder / ".venv" / "made").write_text(hashlib.sha256(b"pc").hexdigest())  # the environment fits
    (folder / ".venv" / "bin").mkdir()
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    places = script.Places(checkout, script.Folder(folder))
    code = folder / "worktree" / "code"

    assert script.pin(places, "HEAD~1") == commits[0] == script.pinned(places)
    for commit, content in zip([*commits, commits[0]], ["old", "new", "old"], strict=True):
        (folder / "worktree" / "phantoms").unlink(missing_ok=True)
        script.place_worktree(places, commit)
        assert code.read_text() == content
        assert (folder / "worktree" / "phantoms").exists() == (content == "new")  # to train on
    (folder / "worktree" / ".git").write_text("gitdir: /nowhere\n")  # the checkout was cloned anew
    script.place_worktree(places, commits[1])
    assert code.read_text() == "new"
    with pytest.raises(JobError, match="no commit 'nothing'"):
        script.pin(places, "nothing")

    # A Python of one's own trains with the code of the checkout, not with what is pinned.
    own = script.Places(checkout, script.Folder(folder), Path(sys.executable))
    assert script.pinned(own) == commits[1] != script.pinned(places)


def test_threads_are_what_others_leave(script: ModuleType) -> None:
    assert [script.threads_for(others, 2) for others in (0.0, 0.4, 0.6, 1.0, 2.0, 7.0)] == [2, 2, 1, 1, 1, 1]


def test_full_precision_is_found(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for kind, wrong in (("F16", ""), ("F32", "F32"), ("I64", ""), ("BF16", "BF16")):
        header = json.dumps({"__metadata__": {}, "w": {"dtype": kind}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        assert script.full_precision(path) == wrong


def test_only_trainings_of_segmentation_have_a_checkpoint(script: ModuleType, tmp_path: Path) -> None:
    places = script.Places(tmp_path, script.Folder(tmp_path))
    plain = places.covseg(["train", "data.toml"], 1, "a")
    whole = places.covseg(["train", "data.toml", "--task", "recognition"], 1, "b")
    assert plain[-6:-2] == ["--out", f"{tmp_path}/a.safetensors", "--checkpoint", f"{tmp_path}/a.checkpoint"]
    assert "--checkpoint" not in whole and whole[-4:] == [
        "--out", f"{tmp_path}/b.safetensors", "--threads", "1",
    ]  # fmt: skip
