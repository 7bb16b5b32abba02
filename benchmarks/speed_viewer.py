"""A real viewer while its child predicts: scrubbing, memory, and what it has imported.

    python benchmarks/speed_viewer.py WORKSPACE SMALL_CASE CASE LARGE_CASE MODEL [REPEATS]

Prints JSON: median seconds of drawing 50 slices of the case, idle and while predicting,
interleaved; bytes of the large case's voxels, and the most that viewer and child together
take above an idle viewer and an idle child while it is opened and predicted, both when
these were just started and after they have shown and predicted the small case (the first
layer that napari draws costs the same for any scan); whether torch was imported.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import napari
import psutil
from qtpy.QtWidgets import QApplication

from napari_covseg.jobs.events import END, Event
from napari_covseg.jobs.requests import WarmUp

PATIENCE = 600.0  # seconds
SLICES = 50


class Bench:
    """A viewer with the dock, driven as Qt would."""

    def __init__(self, workspace: str, model: str) -> None:
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 800)
        _, dock = self.viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
        self.workbench: Any = dock.workbench
        self.session: Any = dock.session
        self.session.use_workspace(workspace)
        self._model = model
        self._drawn = 0
        self.viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(self._on_draw)
        self._merged = 0
        self.session.labels_changed.connect(self._on_merged)

    def until(self, condition: Callable[[], bool]) -> None:
        """Process events until something is true."""
        end = time.monotonic() + PATIENCE
        while not condition():
            QApplication.processEvents()
            if time.monotonic() > end:
                raise SystemExit(f"nothing in {PATIENCE:.0f} s; busy with {self.session.busy_with!r}")
            time.sleep(0.001)

    def idle(self) -> bool:
        """Return whether nothing is going on."""
        return not self.session.busy_with

    def open(self, case: str) -> None:
        """Open a case of the workspace."""
        self.workbench.opening.case(case)
        self.until(self.idle)

    def predict(self) -> None:
        """Begin a prediction and wait for its first slice."""
        self._merged = 0
        self.workbench.labelling.start(self._model, "benchmark")
        self.until(lambda: self._merged > 0)

    def work(self, case: str) -> None:
        """Open a case and predict it to the end."""
        self.open(case)
        self.predict()
        self.until(self.idle)

    def warm_up(self) -> list[int]:
        """Let the child load the model; return the ids of the viewer's process and of the child's."""
        events: list[Event] = []
        self.workbench.jobs.submit(WarmUp(self._model), events.append)
        self.until(lambda: bool(events) and isinstance(events[-1], END))
        self.until_passed(1)
        return [psutil.Process().pid, self.workbench.jobs.child_pid]

    def until_passed(self, seconds: float) -> None:
        """Process events for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def scrub(self) -> float:
        """Return the seconds that it takes to show slices one after the other, each drawn."""
        begun = time.perf_counter()
        for z in range(SLICES):
            before = self._drawn
            self.viewer.dims.set_current_step(0, 20 + z)
            while self._drawn == before:
                QApplication.processEvents()
        return time.perf_counter() - begun

    def _on_draw(self, event: object) -> None:
        self._drawn += 1

    def _on_merged(self) -> None:
        self._merged += 1


class Memory:
    """Notes the most memory that processes take together, while it is entered."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.now()
        self.most = self.before

    def now(self) -> int:
        """Return bytes; libraries that processes share count in each, so that no other program matters."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self._pids)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.most = max(self.most, self.now())


def measure_memory(bench: Bench, small: str, large: str) -> dict[str, float]:
    """Open and predict cases; return bytes of the large one's voxels and of the memory that took at most."""
    bench.until_passed(1)
    with Memory(bench.warm_up()) as memory:
        fresh = memory.before
        bench.work(small)
        bench.until_passed(1)
        idle = memory.now()
        memory.most = 0
        bench.work(large)
    scan = bench.session.case.voxels.nbytes
    return {"scan": scan, "above_fresh": memory.most - fresh, "above_idle": memory.most - idle}


def measure_scrubbing(bench: Bench, repeats: int) -> dict[str, float]:
    """Return the medians of scrubbing while idle and while predicting."""
    idle, busy = [], []
    bench.scrub()
    for _ in range(repeats):
        idle.append(bench.scrub())
        bench.predict()
        busy.append(bench.scrub())
        if bench.idle():
            raise SystemExit("the prediction ended before the scrubbing: use a case with more slices")
        bench.session.cancel()
        bench.until(bench.idle)
        bench.until_passed(0.5)
    return {"idle": statistics.median(idle), "busy": statistics.median(busy)}


def main() -> None:
    """Print the figures as JSON."""
    workspace, small, case, large, model = sys.argv[1:6]
    repeats = int(sys.argv[6]) if len(sys.argv) > 6 else 5
    bench = Bench(workspace, model)
    memory = measure_memory(bench, small, large)
    bench.open(case)
    scrub = measure_scrubbing(bench, repeats)
    torch = "torch" in sys.modules
    bench.workbench.close()
    bench.viewer.close()
    print(json.dumps({"memory": memory, "scrub": scrub, "torch": torch}))


if __name__ == "__main__":
    main()
