"""Change the code in one place at a time and see whether a test notices: mutation testing.

    python benchmarks/mutants.py map --to FOLDER          which test runs which lines, once
    python benchmarks/mutants.py run --to FOLDER          try the sample; goes on where it was stopped
    python benchmarks/mutants.py run --to FOLDER --again  try once more what survived
    python benchmarks/mutants.py table --to FOLDER        print killed, survived and equivalent by room

Where what is tried lies is in ROOMS, with the size of each room's sample. A change (a mutant) is drawn
by a hash of the seed, of the place in the code and of the change, so that most of the sample stays the
same when the code around it changes. Those in which no test can see a difference stand with their reason
in ``benchmarks/mutants.toml``.

Of a mutant only those tests are run that reach its line, the quickest first, in a process that is forked
from one which has torch and the like loaded already, and on a copy of the package, so that the
processes that tests start see the mutant too. Existing tools change functions only (mutmut) or start
Python anew for each mutant (cosmic-ray), which here costs more than the tests.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import functools
import gc
import hashlib
import importlib
import io
import itertools
import json
import os
import py_compile
import re
import resource
import shutil
import signal
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

HERE = Path(__file__).resolve().parents[1]
SRC = HERE / "src"
PACKAGE = "napari_covseg"
SEED = 2022
ROOMS: dict[str, tuple[int, tuple[str, ...]]] = {
    "metrics": (40, ("metrics/*.py",)),
    "networks": (110, ("networks/*.py",)),
    "predict": (110, ("predict/*.py",)),
    "learn": (120, ("learn/*.py",)),
    "scans": (60, ("scans/orientation.py", "scans/scan.py", "scans/volumes.py", "scans/dicom/stack.py")),
}
TESTS = (
    *("metrics", "networks", "models", "predict", "learn", "assess/test_scoring.py"),
    *("scans/test_orientation.py", "scans/test_volumes.py", "scans/test_nifti.py", "scans/test_intensity.py"),
    *("scans/test_dicom.py", "scans/test_dicom_series.py", "scans/test_write_labels.py"),
    *(
        "scans/test_text_headers.py",
        "scans/test_tiff_stacks.py",
        "scans/test_stack.py",
        "jobs/test_finetune_cases.py",
    ),
    *("jobs/test_predict_case.py", "jobs/test_predict_file.py", "jobs/test_refine_slice.py"),
)
WARM = (
    "numpy scipy.ndimage scipy.spatial scipy.optimize torch monai.losses cv2 nibabel SimpleITK pydicom "
    "pydantic zarr PIL.Image skimage.morphology hypothesis pytest"
)
LONGEST = 5.0  # seconds; tests that take longer are left out, another one has to notice
FIRST = 8  # tests that are tried before the files of the others are loaded
# without the plug-ins of all that is installed: napari takes ten times longer to load than most tests run
QUIET = ["-q", "-p", "pytest_timeout", "-p", "no:cacheprovider", "-W", "ignore"]

SWAPPED = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}
SPEAKS = {"warn", "info", "debug", "warning", "print", "cast", "TypeVar", "ValueError", "TypeError"}
NEUTRAL = {"strict", "inplace"}  # arguments of zip and of layers on which no result depends
WITH_BODY = ("body", "orelse", "finalbody", "handlers")


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes
    ----------
    file : str
        Below `src/napari_covseg`.
    kind : str
    start, end : int
        Bytes that are replaced.
    new : str
    place : str
        The function or class in which it is, dotted; "" for the module.
    lines : tuple of int
        First and last line of the statement, or of the head of one that has a body.
    inside : bool
        Whether the statement runs when a function is called, and not when the module is loaded.
    before, after : str
        The line, or as much of it as changes, as it was and as it is.
    """

    file: str
    kind: str
    start: int
    end: int
    new: str
    place: str
    lines: tuple[int, int]
    inside: bool
    before: str
    after: str
    nth: int = 0

    @property
    def key(self) -> str:
        """What names the mutant as long as its own line does not change."""
        parts = (self.file, self.place, self.before, self.after, str(self.nth))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    @property
    def room(self) -> str:
        """The room of the file."""
        return self.file.split("/")[0]

    def applied(self, source: bytes) -> bytes:
        """Return the source with the change."""
        return source[: self.start] + self.new.encode() + source[self.end :]


# Making them


def mutants_of(source: bytes, file: str = "") -> list[Mutant]:
    """Return every change of a module that is tried, in the order of the source."""
    found: list[Mutant] = []
    seen: Counter[tuple[str, str, str]] = Counter()
    for kind, start, end, new, lines, place, inside in sorted(_Changes(source).all(), key=lambda c: c[1:4]):
        before, after = _difference(source, start, end, new)
        if before != after:
            seen[place, before, after] += 1
            nth = seen[place, before, after]
            found.append(Mutant(file, kind, start, end, new, place, lines, inside, before, after, nth))
    return found


def compiles(source: bytes) -> bool:
    """Whether a change leaves Python: what is left of an expression may not be one."""
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _difference(source: bytes, start: int, end: int, new: str) -> tuple[str, str]:
    """Return the lines around a change, without and with it, each as one line."""
    first = source.rfind(b"\n", 0, start) + 1
    last = source.find(b"\n", end)
    last = len(source) if last < 0 else last
    before = source[first:last].decode()
    after = source[first:start].decode() + new + source[end:last].decode()
    return " ".join(before.split()), " ".join(after.split())


Change = tuple[str, int, int, str, tuple[int, int], str, bool]


class _Changes:
    """Walks a module and collects its changes."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._found: list[Change] = []
        self._where: tuple[tuple[int, int], str, bool] = ((0, 0), "", False)

    def all(self) -> list[Change]:
        """Return all changes."""
        self._body(ast.parse(self._source).body, "", False)
        return self._found

    def _span(self, node: Any) -> tuple[int, int]:
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def _add(self, kind: str, span: tuple[int, int], new: str) -> None:
        self._found.append((kind, *span, new, *self._where))

    # Statements

    def _body(self, statements: list[ast.stmt], place: str, inside: bool) -> None:
        for statement in statements:
            self._statement(statement, place, inside)

    def _statement(self, node: ast.stmt, place: str, inside: bool) -> None:
        bodies = [part for name in WITH_BODY for part in getattr(node, name, [])]
        head_end = min([part.lineno for part in bodies], default=(node.end_lineno or 0) + 1) - 1
        self._where = ((node.lineno, max(head_end, node.lineno)), place, inside)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                name = f"{place}.{node.name}".lstrip(".")
                if isinstance(node, ast.ClassDef):
                    self._body(node.body, name, False)
                    return
                self._where = ((node.lineno, node.end_lineno or 0), name, True)  # whoever calls it
                for default in [*node.args.defaults, *node.args.kw_defaults]:
                    self._expression(default)
                self._body(node.body, name, True)
                return
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
                return
            case ast.Import() | ast.ImportFrom():
                return
            case ast.Raise():
                self._add("statement", self._span(node), "pass")
                return
            case ast.Expr(value=ast.Constant()):
                return  # a docstring
            case ast.Expr():
                if not self._speaks(node.value):
                    self._add("statement", self._span(node), "pass")
            case ast.AugAssign():
                self._add("statement", self._span(node), "pass")
                self._swap(node.op, node.target, node.value)
            case ast.Assign(targets=[ast.Subscript()]):
                self._add("statement", self._span(node), "pass")
            case ast.Assign(targets=[ast.Name(id=name)]) if name in ("__all__", "__slots__"):
                return
            case ast.Return(value=ast.expr()) if ast.unparse(node.value) != "None":
                self._add("return", self._span(node), "return None")
            case ast.Break():
                self._add("loop", self._span(node), "continue")
            case ast.Continue():
                self._add("loop", self._span(node), "break")
            case ast.If(test=test) | ast.While(test=test):
                self._negate(test)
        for field, value in ast.iter_fields(node):
            if field in (*WITH_BODY, "annotation", "targets", "target", "cases"):
                if field == "targets" and isinstance(value[0], ast.Subscript):
                    self._expression(value[0].slice)
                continue
            for part in value if isinstance(value, list) else [value]:
                self._expression(part)
        for case in getattr(node, "cases", []):
            self._body(case.body, place, inside)
        for name in WITH_BODY:
            for part in getattr(node, name, []):
                if isinstance(part, ast.ExceptHandler):
                    self._body(part.body, place, inside)
                else:
                    self._statement(part, place, inside)

    # Expressions

    def _speaks(self, node: ast.AST) -> bool:
        """Whether a call writes to a person or tells types, and decides nothing."""
        if not isinstance(node, ast.Call):
            return False
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name in SPEAKS or name.endswith(("Error", "Warning"))

    def _expression(self, node: Any) -> None:
        if not isinstance(node, ast.AST) or self._speaks(node):
            return
        match node:
            case ast.JoinedStr():
                return  # a sentence
            case ast.Subscript(value=ast.Name(id="Literal" | "Annotated" | "Callable" | "tuple")):
                return  # a type
            case ast.Constant():
                self._constant(node)
            case ast.BinOp():
                self._swap(node.op, node.left, node.right)
            case ast.BoolOp():
                for left, right in zip(node.values, node.values[1:], strict=False):
                    self._swap(node.op, left, right)
            case ast.Compare():
                for left, op, right in zip(
                    [node.left, *node.comparators], node.ops, node.comparators, strict=False
                ):
                    self._swap(op, left, right)
            case ast.UnaryOp():
                start, _ = self._span(node)
                length = 3 if isinstance(node.op, ast.Not) else 1
                self._add("sign or not", (start, start + length), "")
            case ast.IfExp():
                self._negate(node.test)
            case ast.comprehension():
                for test in node.ifs:
                    self._negate(test)
            case ast.Call():
                for keyword in node.keywords:
                    self._drop(keyword)
            case ast.keyword() if node.arg in NEUTRAL:
                return
            case ast.Slice():
                for part in (node.lower, node.upper, node.step):
                    if part is not None:
                        self._add("slice", self._span(part), "")
        for child in ast.iter_child_nodes(node):
            self._expression(child)

    def _constant(self, node: ast.Constant) -> None:
        value, span = node.value, self._span(node)
        if isinstance(value, bool):
            self._add("constant", span, str(not value))
        elif isinstance(value, int):
            self._add("number", span, str(value + 1))
            self._add("number", span, str(value - 1) if value else "-1")
        elif isinstance(value, float):
            self._add("number", span, repr(value * 2 if value else 1.0))
            self._add("number", span, repr(value / 2 if value else -1.0))
        elif isinstance(value, str) and value and not re.search(r"\s", value):
            self._add("string", span, repr(f"{value}XX"))

    def _swap(self, op: ast.AST, left: ast.AST, right: ast.AST) -> None:
        if type(op) not in SWAPPED:
            return
        old, new = SWAPPED[type(op)]
        end = self._span(left)[1]
        at = self._source.find(old.encode(), end, self._span(right)[0])
        if at >= 0:
            kind = (
                "comparison"
                if isinstance(op, ast.cmpop)
                else "and, or"
                if isinstance(op, ast.boolop)
                else "arithmetic"
            )
            self._add(kind, (at, at + len(old)), new)

    def _negate(self, test: ast.expr) -> None:
        if isinstance(test, ast.Constant | ast.Compare) or (
            isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        ):
            return  # it has changes of its own that do as much
        start, end = self._span(test)
        self._add("condition", (start, end), f"(not ({self._source[start:end].decode()}))")

    def _drop(self, keyword: ast.keyword) -> None:
        if keyword.arg is None or keyword.arg in NEUTRAL:
            return
        start, end = self._span(keyword)
        if comma := re.compile(rb"\s*,\s*").match(self._source, end):
            self._add("argument", (start, comma.end()), "")
        elif comma := re.search(rb",\s*$", self._source[:start]):
            self._add("argument", (comma.start(), end), "")


def drawn(seed: int = SEED) -> list[Mutant]:
    """Return the sample, by room and place."""
    sample = []
    for size, patterns in ROOMS.values():
        paths = {path for pattern in patterns for path in (SRC / PACKAGE).glob(pattern)}
        sources = {path.relative_to(SRC / PACKAGE).as_posix(): path.read_bytes() for path in paths}
        every = [mutant for file, source in sources.items() for mutant in mutants_of(source, file)]
        every.sort(key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest())
        whole = (mutant for mutant in every if compiles(mutant.applied(sources[mutant.file])))
        chosen = itertools.islice(whole, size)
        sample += sorted(chosen, key=lambda mutant: (mutant.file, mutant.start, mutant.end, mutant.new))
    return sample


# Which test runs which lines


class _Mapping:
    """A pytest plugin that notes which lines each test runs, its fixtures included, and how long it takes."""

    def __init__(self, tests: dict[str, dict[str, Any]], path: Path) -> None:
        self.tests = tests
        self._path = path
        self._lines: set[tuple[str, int]] = set()
        self._fixtures: dict[Any, set[tuple[str, int]]] = {}
        self._seconds: dict[Any, float] = {}
        self._watched: dict[str, str] = {}

    def _enter(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        code: CodeType = frame.f_code
        name = self._watched.get(code.co_filename)
        if name is None:
            inside = code.co_filename.startswith(f"{SRC}/")
            name = code.co_filename.removeprefix(f"{SRC}/{PACKAGE}/") if inside else ""
            self._watched[code.co_filename] = name
        if not name or code.co_name == "<module>":
            return None
        self._lines.add((name, frame.f_lineno))

        def line(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
            self._lines.add((name, frame.f_lineno))
            return line

        return line

    @contextlib.contextmanager
    def _noting(self) -> Iterator[set[tuple[str, int]]]:
        """Note lines apart from those of whoever is noting at the time."""
        outer, self._lines = self._lines, set()
        before = sys.gettrace()
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        try:
            yield self._lines
        finally:
            sys.settrace(before)
            threading.settrace(before)
            self._lines = outer

    def write(self) -> None:
        """Write what is known so far."""
        self._path.write_text(json.dumps(self.tests))

    def plugin(self) -> Any:
        """Return the plugin."""
        import pytest

        mapping = self

        class Plugin:
            def pytest_collection_modifyitems(self, items: list[Any]) -> None:
                items[:] = [item for item in items if item.nodeid not in mapping.tests]

            @pytest.hookimpl(wrapper=True)
            def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
                begun = time.process_time()
                with mapping._noting() as lines:
                    result = yield
                mapping._fixtures.setdefault(fixturedef, set()).update(lines)
                mapping._seconds[fixturedef] = time.process_time() - begun
                return result

            @pytest.hookimpl(wrapper=True)
            def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
                _forget()
                begun = time.process_time()
                with mapping._noting() as lines:
                    result = yield
                seconds = time.process_time() - begun
                for fixtures in item._fixtureinfo.name2fixturedefs.values():
                    for fixture in fixtures:
                        lines |= mapping._fixtures.get(fixture, set())
                        if fixture.scope != "function" and mapping._seconds.get(fixture, 0) < seconds:
                            continue  # it was made for this test, and is counted
                        if fixture.scope != "function":
                            seconds += mapping._seconds.get(fixture, 0)
                by_file: dict[str, list[int]] = {}
                for name, number in sorted(lines):
                    by_file.setdefault(name, []).append(number)
                mapping.tests[item.nodeid] = {"seconds": round(seconds, 3), "lines": by_file}
                if len(mapping.tests) % 25 == 0:
                    mapping.write()
                return result

        return Plugin()


def _forget() -> None:
    """Empty the caches of the package, whose lines would else count for the first test alone."""
    for name, module in list(sys.modules.items()):
        if name.startswith(PACKAGE):
            for each in vars(module).values():
                if isinstance(each, functools._lru_cache_wrapper):
                    each.cache_clear()


def make_map(folder: Path) -> None:
    """Run each test that is not in the map yet, and write which lines it runs."""
    import pytest

    sys.path.insert(0, str(SRC))
    path = folder / "map.json"
    mapping = _Mapping(json.loads(path.read_text()) if path.exists() else {}, path)
    pytest.main([*QUIET, *(str(HERE / "tests" / name) for name in TESTS)], [mapping.plugin()])
    mapping.write()
    print(f"{len(mapping.tests)} tests, {sum(t['seconds'] for t in mapping.tests.values()):.0f} s")


class Reach:
    """Which tests reach a mutant."""

    def __init__(self, tests: dict[str, dict[str, Any]]) -> None:
        self._tests = tests
        self._texts = {path: path.read_text("utf-8") for path in (HERE / "tests").rglob("*.py")}
        self._lines = {
            path.relative_to(SRC / PACKAGE).as_posix(): path.read_text("utf-8").splitlines()
            for path in (SRC / PACKAGE).rglob("*.py")
        }

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests, those of the mutant's room and the quickest first."""
        first, last = mutant.lines
        wanted, names = {mutant.file: set(range(first, last + 1))}, set()
        if not mutant.inside:  # whoever uses the module, or the class or value by its name
            line = self._lines[mutant.file][first - 1]
            names = self._made_of(mutant.file, mutant.place or re.match(r"\w*", line)[0])
            wanted = self._with(names) | {mutant.file: set(range(1, len(self._lines[mutant.file]) + 1))}
        chosen = self._that_reach(wanted, names)
        if not chosen:  # compiled by torch, or in a process that a test starts: nobody has seen the line run
            chosen = self._that_reach({mutant.file: set(range(1, len(self._lines[mutant.file]) + 1))}, names)
        return sorted(
            chosen, key=lambda test: (f"tests/{mutant.room}/" not in test, self._tests[test]["seconds"])
        )

    def _that_reach(self, wanted: dict[str, set[int]], names: set[str]) -> list[str]:
        word = _any_of(names)
        return [
            test
            for test, known in self._tests.items()
            if known["seconds"] <= LONGEST
            and (
                any(not numbers.isdisjoint(known["lines"].get(file, ())) for file, numbers in wanted.items())
                or (names and word.search(self._texts[HERE / test.split("::")[0]]))
            )
        ]

    def seconds(self, tests: list[str]) -> float:
        """Return how long tests take together."""
        return sum(self._tests[name]["seconds"] for name in tests)

    def _made_of(self, file: str, name: str) -> set[str]:
        """Return the name of a value of a module, and the names of those that are made of it."""
        names = {name} - {""}
        for statement in ast.parse("\n".join(self._lines[file])).body:
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                first, *used = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
                names |= {first} if names & set(used) else set()
        return names

    def _with(self, names: set[str]) -> dict[str, set[int]]:
        """Return the lines that have one of the names."""
        word = _any_of(names)
        return {
            file: {number for number, line in enumerate(lines, 1) if names and word.search(line)}
            for file, lines in self._lines.items()
        }


def _any_of(names: set[str]) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(sorted(names))})\b")


# Trying them


def run(folder: Path, again: bool, only: str) -> None:
    """Try every mutant of the sample that has no result yet, and write each result at once."""
    results = folder / "results.jsonl"
    known = _results(results)
    reach = Reach(json.loads((folder / "map.json").read_text()))
    package = _copy(folder)
    _warm()
    for mutant in drawn():
        last = known.get(mutant.key)
        if (last and not (again and last["result"] == "survived")) or only not in mutant.file:
            continue
        tests = reach.of(mutant)
        begun = time.monotonic()
        result, by = (
            _try(mutant, tests, package, 10 + 4 * reach.seconds(tests)) if tests else ("survived", "")
        )
        line = {"key": mutant.key, "result": result, "by": by, "tests": len(tests), **asdict(mutant)}
        with results.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(
            f"{result:9} {time.monotonic() - begun:6.1f} s {mutant.file}:{mutant.lines[0]} {mutant.after}",
            flush=True,
        )


def _copy(folder: Path) -> Path:
    """Return a copy of the package whose compiled files are checked against the text of their source."""
    shutil.rmtree(folder / "src", ignore_errors=True)
    shutil.copytree(SRC, folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(folder / "src", quiet=2, invalidation_mode=mode)
    return folder / "src"


def _warm() -> None:
    for name in WARM.split():
        importlib.import_module(name)
    gc.freeze()


def _try(mutant: Mutant, tests: list[str], package: Path, seconds: float) -> tuple[str, str]:
    """Run tests on a mutant: killed with the test that noticed, survived, or timeout."""
    path = package / PACKAGE / mutant.file
    original = (SRC / PACKAGE / mutant.file).read_bytes()
    path.write_bytes(mutant.applied(original))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _child(tests, package, writer, seconds)
    os.close(writer)
    end = time.monotonic() + 5 * seconds
    try:
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.02)
        with open(reader) as stream:
            told = stream.read()
    finally:
        path.write_bytes(original)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # processes that a test had started
    if told.startswith("passed"):
        return "survived", ""
    return ("killed", told.splitlines()[0]) if told.strip() else ("timeout", "")


def _child(tests: list[str], package: Path, writer: int, seconds: float) -> None:
    """Run tests; write the first that fails, or "passed"."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 5))
    sys.path.insert(0, str(package))
    os.environ["PYTHONPATH"] = str(package)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    sys.stdout = sys.stderr = io.StringIO()
    import pytest

    class Watch:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                os.write(writer, f"{report.nodeid}\n".encode())

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                os.write(writer, f"{report.nodeid} (import)\n".encode())

    code = 1
    try:
        for some in (tests[:FIRST], tests[FIRST:]):  # the second half of the files need not even be loaded
            code = pytest.main([*QUIET, "-x", *some], [Watch()]) if some else 0
            if code:
                break
        if code == 0:
            os.write(writer, b"passed\n")
        else:
            os.write(writer, f"pytest ended with {code!r}\n".encode())
    except BaseException as error:
        os.write(writer, f"{type(error).__name__}\n".encode())
    os._exit(0)


def _results(path: Path) -> dict[str, dict[str, Any]]:
    """Return the last result of each mutant by its key."""
    if not path.exists():
        return {}
    return {line["key"]: line for line in map(json.loads, path.read_text().splitlines())}


def equivalents() -> dict[str, str]:
    """Return the reasons of the mutants in which no test can see a difference, by file and change."""
    path = HERE / "benchmarks" / "mutants.toml"
    entries = tomllib.loads(path.read_text("utf-8"))["equivalent"] if path.exists() else []
    return {f"{entry['file']}: {entry['after']}": entry["reason"] for entry in entries}


def table(folder: Path) -> None:
    """Print results by room, and what has survived."""
    reasons, known = equivalents(), _results(folder / "results.jsonl")
    counts: dict[str, Counter[str]] = {room: Counter() for room in ROOMS}
    survivors = []
    for mutant in drawn():
        result = known[mutant.key]["result"] if mutant.key in known else "not tried"
        if result == "survived" and f"{mutant.file}: {mutant.after}" in reasons:
            result = "equivalent"
        elif result == "survived":
            survivors.append(mutant)
        counts[mutant.room].update([result, "mutants"])
    counts["all"] = sum(counts.values(), Counter())
    columns = ["mutants", "killed", "timeout", "survived", "equivalent", "not tried"]
    print(f"{'seed ' + str(SEED):10}", *(f"{name:>10}" for name in columns))
    for room, found in counts.items():
        print(f"{room:10}", *(f"{found[name]:10}" for name in columns))
    able = counts["all"]["mutants"] - counts["all"]["equivalent"]
    print(f"{counts['all']['survived'] / able:.1%} of those that are not equivalent survive")
    for mutant in survivors:
        print(f"\n{mutant.file}:{mutant.lines[0]} {mutant.place} ({mutant.kind})")
        print(f"  - {mutant.before}\n  + {mutant.after}")


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["map", "run", "table"])
    parser.add_argument("--to", type=Path, required=True, help="folder outside of the repository")
    parser.add_argument("--again", action="store_true", help="what survived, once more")
    parser.add_argument("--only", default="", help="files whose path contains this")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    options.to.mkdir(parents=True, exist_ok=True)
    match options.command:
        case "map":
            make_map(options.to)
        case "run":
            run(options.to.resolve(), options.again, options.only)
        case "table":
            table(options.to)


if __name__ == "__main__":
    main()
