"""Install each extra alone, as a user would, and see that what needs it works there.

    python benchmarks/fresh_environments.py [EXTRA ...] [--folder FOLDER]

What every extra needs is installed once; an environment for each adds its own packages to it and
nothing else. In each the package is imported, `covseg --help` is run, and the tests of what the
extra is for. Prints a line for each and ends with 1 if one failed. A few minutes, and two gigabytes in
the folder, which is a temporary one by default.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTERS = ("pytest", "pytest-timeout", "pytest-qt", "pytest-xdist", "hypothesis", "psutil")
SCREEN = ("xvfb-run", "-a", "-s", "-screen 0 1600x1000x24")
TESTS = {
    "": ["tests/metrics", "tests/masks", "tests/models/test_card.py"],
    "desktop": ["tests/gui/test_dock.py", "tests/gui/test_learn_step.py"],
    "remote": ["tests/cases/test_workspace.py"],
    "export": ["tests/models/test_export.py"],
    "train": ["tests/networks/test_efficientnet.py"],
    "figures": ["tests/assess/test_effort_tables.py"],
    "test": ["tests/scans/test_orientation.py"],
    "docs": ["tests/test_docs_pages.py"],
    "dev": [],
}


def python_of(folder: Path, below: Path | None = None) -> Path:
    """Make an environment, over the packages of another one, and return its Python."""
    venv.create(folder, with_pip=True)
    if below is not None:
        (packages,) = folder.glob("lib/python*/site-packages")
        (others,) = below.glob("lib/python*/site-packages")
        (packages / "below.pth").write_text(f"{others}\n")
    return folder / "bin" / "python"


def run(python: Path, *words: str, on_screen: bool = False) -> str:
    """Run Python in the checkout; return the end of what it said if it failed, else nothing."""
    command = [*(SCREEN if on_screen else ()), str(python), *words]
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COVSEG_DATA")}
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True)
    return (done.stdout + done.stderr)[-2000:] if done.returncode else ""


def install(python: Path, *what: str) -> str:
    """Install into an environment, in the versions that are tested."""
    return run(python, "-m", "pip", "install", "-q", "--no-compile", "-c", "constraints.txt", *what)


def tried(python: Path, extra: str) -> str:
    """Import, ask for help and test; return what failed, or nothing."""
    tests = TESTS.get(extra, [])
    said = run(python, "-c", "import napari_covseg as it; it.read_scan; print(it.__version__)")
    said = said or run(python, "-m", "napari_covseg.cli", "--help")
    if not said and tests:
        seen = extra == "desktop"
        without_qt = () if seen else ("-p", "no:pytest-qt")
        said = run(python, "-m", "pytest", "-q", "-x", *without_qt, *tests, on_screen=seen)
    return said


def main() -> None:
    """Try the extras."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    parser.add_argument("extras", nargs="*", default=["", *declared], metavar="EXTRA")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if unknown := set(declared) - set(TESTS):
        sys.exit(f"say here which tests need {', '.join(sorted(unknown))}")
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        below = folder / "base"
        if said := install(python_of(below), "--editable", ".", *TESTERS):
            sys.exit(said)
        for extra in given.extras:
            python = python_of(folder / (extra or "none"), below)
            said = install(python, "--editable", f".[{extra}]" if extra else ".")
            said = said or tried(python, extra)
            print(f"{extra or 'no extra':<10} {'FAILED' if said else 'works'}", flush=True)
            failed += bool(said)
            if said:
                print(said, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
