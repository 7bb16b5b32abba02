"""Kill a viewer in the middle of painting, and see that at most the last second is missing.

    python benchmarks/kill_viewer.py [--kills 50] [--seed 0]

A real viewer with the dock paints, erases and undoes with mouse and keys in one case until it
is killed, 1 to 6 seconds after its first stroke. Each time the case has to open, every stroke
that had ended a second before has to be there with just its labels, the history has to be
without gaps, nothing in the workspace may be damaged, and the models have to be what they
were. All kills are of the same case. Needs a display, as
``xvfb-run -a -s "-screen 0 1600x1000x24"``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "gui"))  # the test does the same

from killed_viewer import KilledViewers, tiny_workspace

SHORTEST, LONGEST = 1.0, 6.0  # seconds from the first stroke to the kill


def main() -> None:
    """Kill, check, and print one line for each kill and one for all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    done = []
    with tempfile.TemporaryDirectory() as folder:
        viewers = KilledViewers(*tiny_workspace(Path(folder) / "workspace.zarr"), arguments.seed)
        for number in range(arguments.kills):
            done.append(viewers.kill(SHORTEST, LONGEST))
            print(f"kill {number + 1} of {arguments.kills}: {done[-1]}", flush=True)
    strokes, missing = sum(kill.strokes for kill in done), sum(kill.missing for kill in done)
    print(
        f"{len(done)} kills at random moments of painting: the case opened each time without damage or gap, "
        f"{missing} of {strokes} strokes are missing, never more than the last "
        f"{1e3 * max(kill.lost for kill in done):.0f} ms; the models are intact."
    )


if __name__ == "__main__":
    main()
