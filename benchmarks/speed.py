"""How fast the product is, against the parts that it is made of: one table of ratios from one run.

    python benchmarks/speed.py [--model NAME] [--repeats 5] [--only predict,viewer,store,imports]

Each part runs in processes of its own (`speed_*.py` beside this file). The viewer needs a
display; where there is none, ``xvfb-run`` has to be installed. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_covseg.jobs.memory import core_count
from napari_covseg.models.catalogue import DEFAULT
from speed_case import make_case

HERE = Path(__file__).parent
PARTS = ("predict", "viewer", "store", "imports")
SMALL, MIDDLE, LARGE = 8, 96, 400  # slices; the largest is a chest in thin slices


@dataclass(frozen=True)
class Row:
    """One line of the table; `goal` is (">=" or "<=", ratio), or None where there is none."""

    what: str
    figures: str
    ratio: float
    goal: tuple[str, float] | None = None

    @property
    def reached(self) -> bool:
        """Whether the ratio is where it should be."""
        if self.goal is None:
            return True
        sense, limit = self.goal
        return self.ratio >= limit if sense == ">=" else self.ratio <= limit


def predict_rows(told: dict[str, Any]) -> Iterator[Row]:
    """Compare with the network alone; on a GPU with the store, if that is slower."""
    against, rate = "forward", told["forward"]
    if told["device"] != "cpu":
        against = min(("forward", "store"), key=lambda name: told[name])
        rate = told[against]
    figures = (
        f"{told['job']:.1f} of {rate:.1f} slices/s (forward {told['forward']:.1f}, store {told['store']:.1f})"
    )
    yield Row(f"prediction, end to end / bare {against}", figures, told["job"] / rate, (">=", 0.8))
    figures = f"{told['card']:.1f} of {rate:.1f} slices/s"
    yield Row(f"the same, as the model card asks for it / bare {against}", figures, told["card"] / rate)
    for name, rate in zip(("preparing the slices", "the same at 512, cropped"), told["prepare"], strict=True):
        figures = f"{1e3 / rate:.1f} / {1e3 / told['job']:.1f} ms"
        goal = ("<=", 0.15) if told["device"] == "cpu" else None
        yield Row(f"{name} / prediction, end to end", figures, told["job"] / rate, goal)
    figures = f"{1e3 * told['first']:.0f} / {1e3 * told['single']:.0f} ms"
    yield Row(
        "first slice on a warm child / one bare forward", figures, told["first"] / told["single"], ("<=", 3)
    )


def viewer_rows(told: dict[str, Any]) -> Iterator[Row]:
    """Scrubbing, memory and torch."""
    busy, idle = told["scrub"]["busy"], told["scrub"]["idle"]
    yield Row(
        "scrubbing 50 slices, predicting / idle", f"{busy:.2f} / {idle:.2f} s", busy / idle, ("<=", 1.25)
    )
    memory = told["memory"]
    for name, since, goal in (
        ("above_fresh", "just started", ("<=", 2.5)),
        ("above_idle", "that have worked", None),
    ):
        figures = f"{memory[name] / 1e6:.0f} / {memory['scan'] / 1e6:.0f} MB"
        what = f"memory above idle viewer and child {since} / scan"
        yield Row(what, figures, memory[name] / memory["scan"], goal)
    yield Row(
        "torch imported by the viewer", "yes" if told["torch"] else "no", float(told["torch"]), ("<=", 0)
    )


def store_rows(told: dict[str, Any]) -> Iterator[Row]:
    """Slices of the store against a copied file."""
    for name in ("read", "write"):
        figures = f"{told[name]:.0f} / {told['copy']:.0f} MB/s"
        yield Row(f"{name} a case's slices / copy a file", figures, told[name] / told["copy"])


def imports_rows(told: dict[str, Any]) -> Iterator[Row]:
    """The panels against what they stand on."""
    figures = f"{told['panels']:.2f} / {told['basis']:.2f} s"
    what = "import panels / Viewer, magicgui, superqt, zarr, SimpleITK"
    yield Row(what, figures, told["panels"] / told["basis"], ("<=", 1.2))


ROWS = {"predict": predict_rows, "viewer": viewer_rows, "store": store_rows, "imports": imports_rows}


def measure(part: str, arguments: list[str]) -> dict[str, Any]:
    """Run one part and return what it prints."""
    command = [sys.executable, str(HERE / f"speed_{part}.py"), *arguments]
    no_display = sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
    if part == "viewer" and no_display:
        if shutil.which("xvfb-run") is None:
            raise SystemExit("The viewer needs a display: install xvfb, or leave it out with --only.")
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"The part {part!r} has failed; its messages are above.")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def stolen() -> tuple[float, float]:
    """Return the seconds that a host has taken from a virtual machine's cores, and all their seconds."""
    if not Path("/proc/stat").exists():
        return 0.0, 0.0
    ticks = [int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[7] / os.sysconf("SC_CLK_TCK"), sum(ticks) / os.sysconf("SC_CLK_TCK")


def print_table(rows: list[Row]) -> None:
    """Print what was measured, with the goal beside it."""
    wide, figures = (
        max(len(text) for text in column) for column in zip(*((r.what, r.figures) for r in rows), strict=True)
    )
    print(f"{'':{wide}}  {'':{figures}}  ratio  goal")
    for row in rows:
        goal = (
            "" if row.goal is None else f"{row.goal[0]} {row.goal[1]:g}" + ("" if row.reached else "  MISSED")
        )
        print(f"{row.what:{wide}}  {row.figures:>{figures}}  {row.ratio:5.2f}  {goal}")


def main() -> None:
    """Measure the parts and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS), help="parts to measure, with commas")
    arguments = parser.parse_args()
    parts, repeats = arguments.only.split(","), str(arguments.repeats)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}: known are {', '.join(PARTS)}")
    rows: list[Row] = []
    device = "cpu"
    before = stolen()
    with tempfile.TemporaryDirectory() as workspace:
        middle = make_case(workspace, MIDDLE)
        for part in parts:
            asked = {
                "predict": [workspace, middle, arguments.model, repeats],
                "store": [workspace, middle, repeats],
                "imports": [repeats],
            }
            if part == "viewer":
                small, large = (make_case(workspace, slices) for slices in (SMALL, LARGE))
                asked[part] = [workspace, small, middle, large, arguments.model, repeats]
            told = measure(part, asked[part])
            device = told.get("device", device)
            rows += ROWS[part](told)
    where = f"{platform.system()} {platform.machine()}, {core_count()} cores, {device}"
    print(f"{where}; 512 x 512 voxels, {MIDDLE} slices (memory: {LARGE}); medians of {repeats}\n")
    print_table(rows)
    lost, seconds = (now - then for now, then in zip(stolen(), before, strict=True))
    if lost > 0.02 * seconds:
        print(f"\nThe host took {lost / seconds:.0%} of the cores' time: no quiet machine.")
    sys.exit(not all(row.reached for row in rows))


if __name__ == "__main__":
    main()
