"""Count the house: modules, importers, statements; and find what must not be there.

    python benchmarks/house.py            print the counts
    python benchmarks/house.py --check    fail for circles of modules and for private names of other rooms
    python benchmarks/house.py --at REV   print the counts of a commit beside those of now
    python benchmarks/house.py --draw     draw the rooms and who imports whom: docs/images/house.svg

An import inside a function counts like any other; one for type hints only (``TYPE_CHECKING``) does
not. A room is a folder of the package; what a room does not name in its ``__all__`` (modules, or
names of modules) is private to it, and so is any name that begins with an underscore.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "napari_covseg"
_WIDE, _FLOOR, _BOX = 760, 74, 30  # of the drawing
COUNTED = ("src", "sample_data", "benchmarks")


def modules_of(checkout: Path) -> dict[str, ast.Module]:
    """Return the package's modules by dotted name, parsed; packages by their own name."""
    found = {}
    for path in sorted((checkout / "src" / PACKAGE).rglob("*.py")):
        parts = path.relative_to(checkout / "src").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text("utf-8"))
    return found


def imports_of(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Yield what a module imports, wherever in it: module, name ("" for the module itself), line."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name, node.lineno) for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def edges_of(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return which modules of the package each imports."""
    edges: dict[str, set[str]] = {name: set() for name in modules}
    for name, tree in modules.items():
        for module, imported, _ in imports_of(tree):
            target = f"{module}.{imported}" if f"{module}.{imported}" in modules else module
            if target in modules and target != name:
                edges[name].add(target)
    return edges


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(edges[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return found


def room_of(module: str) -> str:
    """Return the room of a module; "" for what lies beside the rooms."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


def public(tree: ast.Module) -> set[str] | None:
    """Return a module's ``__all__``; None if it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
            return set(ast.literal_eval(node.value))
    return None


def trespasses(modules: dict[str, ast.Module]) -> list[str]:
    """Return what is imported from another room though it is private there, one sentence each."""
    rooms = {name.split(".")[1]: public(tree) for name, tree in modules.items() if name.count(".") == 1}
    packages = {room_of(name) for name in modules} - {""}
    found = []
    for name, tree in modules.items():
        for module, imported, line in imports_of(tree):
            room = module.split(".")[1] if module.startswith(PACKAGE + ".") else ""
            if room not in packages or room == (room_of(name) or name.split(".")[-1]):
                continue
            inside = module.split(".")[2:] + ([imported] if imported else [])
            opened = rooms.get(room)
            if any(part.startswith("_") for part in inside) or (
                opened is not None and inside and inside[0] not in opened
            ):
                found.append(
                    f"{name}:{line} imports {module}{'.' if imported else ''}{imported}, private to {room}"
                )
    return found


def counts(checkout: Path) -> dict[str, float]:
    """Count modules, those with one importer, statements (also outside of the package), and their median."""
    modules = modules_of(checkout)
    edges = edges_of(modules)
    importers = {name: sum(name in targets for targets in edges.values()) for name in modules}
    inside = [sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) for tree in modules.values()]
    files = [path for folder in COUNTED for path in (checkout / folder).rglob("*.py")]
    trees = [ast.parse(path.read_text("utf-8")) for path in files]
    return {
        "modules": len(modules),
        "modules with a single importer": sum(number == 1 for number in importers.values()),
        "statements (src, sample_data, benchmarks)": sum(
            isinstance(node, ast.stmt) for tree in trees for node in ast.walk(tree)
        ),
        "statements (src)": sum(inside),
        "median statements of a module": statistics.median(inside),
        "circles of modules": len(circles(edges)),
        "private names of other rooms": len(trespasses(modules)),
    }


def floors(checkout: Path) -> list[list[str]]:
    """Return the rooms of each floor that are there, the upper first, as the import contract names them."""
    folder = checkout / "src" / PACKAGE
    settings = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    named = [[name.strip(" ()") for name in re.split("[|:]", layer)] for layer in layers]
    return [
        [name for name in floor if (folder / name).is_dir() or (folder / f"{name}.py").is_file()]
        for floor in named
    ]


def drawing(checkout: Path) -> str:
    """Return the house as SVG: rooms by floors, an arrow to each that is not reached through another."""
    modules = modules_of(checkout)
    place = {
        room: (row, column, len(rooms))
        for row, rooms in enumerate(floors(checkout))
        for column, room in enumerate(rooms)
    }
    uses: dict[str, set[str]] = {room: set() for room in place}
    for name, targets in edges_of(modules).items():
        room = room_of(name) or name.split(".")[-1]
        uses.get(room, set()).update(
            to for to in (room_of(t) or t.split(".")[-1] for t in targets) if to in place
        )

    def reached(room: str) -> set[str]:
        return set().union(*({other} | reached(other) for other in uses[room] - {room}))

    def centre(room: str) -> tuple[float, float]:
        row, column, count = place[room]
        return _WIDE * (column + 0.5) / count, _FLOOR * (row + 0.5)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_FLOOR * len(floors(checkout))}" '
        'font-family="sans-serif" font-size="14">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#888"/></marker></defs>',
    ]
    for room in place:
        direct = uses[room] - {room}
        for other in sorted(direct - set().union(*(reached(one) for one in direct))):
            (x, y), (to_x, to_y) = centre(room), centre(other)
            lines.append(
                f'<path d="M{x:.0f} {y + _BOX / 2:.0f} L{to_x:.0f} {to_y - _BOX / 2:.0f}" '
                'stroke="#888" fill="none" marker-end="url(#head)"/>'
            )
    for room in place:
        x, y = centre(room)
        lines.append(
            f'<rect x="{x - 52:.0f}" y="{y - _BOX / 2:.0f}" width="104" height="{_BOX}" rx="5" '
            f'fill="#e8eef7" stroke="#4a6fa5"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{room}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    """Print the counts, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail for circles and trespasses")
    parser.add_argument("--at", metavar="REV", action="append", default=[], help="a commit to compare with")
    parser.add_argument("--draw", action="store_true", help="draw the house")
    given = parser.parse_args()
    checkout = Path(__file__).resolve().parent.parent
    picture = checkout / "docs" / "images" / "house.svg"
    if given.draw:
        picture.write_text(drawing(checkout), "utf-8")
        return
    if given.check:
        modules = modules_of(checkout)
        wrong = [f"a circle: {', '.join(group)}" for group in circles(edges_of(modules))] + trespasses(
            modules
        )
        sys.exit("\n".join(wrong) or 0)
    columns = {"now": counts(checkout)}
    for revision in given.at:
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(
                ["git", "-C", str(checkout), "archive", revision, "--", *COUNTED],
                capture_output=True,
                check=True,
            )
            tarfile.open(fileobj=io.BytesIO(packed.stdout)).extractall(folder, filter="data")
            columns[revision] = counts(Path(folder))
    print(f"{'':44}" + "".join(f"{name[:12]:>14}" for name in columns))
    for row in columns["now"]:
        print(f"{row:44}" + "".join(f"{column[row]:14.0f}" for column in columns.values()))


if __name__ == "__main__":
    main()
