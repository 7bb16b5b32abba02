"""The changes that mutation testing tries are those that matter, and the sample stays as it is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mutants.py"
SOURCE = b'''"""What it is for."""
import math
FAR: float = 0.5
def near(a: int, b: int = 3, *, sure: bool = True) -> "int":
    """Say so."""
    if a < b and not sure:
        raise ValueError(f"{a + 1} and 'b'")
    for x in range(a, step=b):
        continue
    a += math.pi // 2
    return values["x"][1:] if sure else None
'''
EXPECTED = {
    "FAR: float = 1.0",
    "FAR: float = 0.25",
    'def near(a: int, b: int = 4, *, sure: bool = True) -> "int":',
    'def near(a: int, b: int = 2, *, sure: bool = True) -> "int":',
    'def near(a: int, b: int = 3, *, sure: bool = False) -> "int":',
    "if (not (a < b and not sure)):",
    "if a <= b and not sure:",
    "if a < b or not sure:",
    "if a < b and  sure:".replace("  ", " "),
    "pass",
    "for x in range(a):",
    "break",
    "a -= math.pi // 2",
    "a += math.pi / 2",
    "a += math.pi // 3",
    "a += math.pi // 1",
    "return None",
    "return values['xXX'][1:] if sure else None",
    'return values["x"][2:] if sure else None',
    'return values["x"][0:] if sure else None',
    'return values["x"][:] if sure else None',
    'return values["x"][1:] if (not (sure)) else None',
}


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_what_decides_is_changed_and_words_and_types_are_not(mutants: ModuleType) -> None:
    found = mutants.mutants_of(SOURCE, "room/file.py")
    assert {mutant.after for mutant in found} == EXPECTED
    assert all(mutants.compiles(mutant.applied(SOURCE)) for mutant in found)
    head = next(mutant for mutant in found if "<=" in mutant.after)
    assert (head.lines, head.inside, head.place, head.room) == ((6, 6), True, "near", "room")
    assert not next(mutant for mutant in found if "FAR" in mutant.after).inside


def test_a_mutant_keeps_its_name_when_other_lines_change(mutants: ModuleType) -> None:
    moved = SOURCE.replace(b"FAR", b"FURTHER = 1\nFAR")
    before, after = ({one.key for one in mutants.mutants_of(text, "f.py")} for text in (SOURCE, moved))
    assert before < after


def test_the_sample_has_every_room_and_what_is_called_equivalent_is_a_change_of_the_code(
    mutants: ModuleType,
) -> None:
    sample = mutants.drawn()
    assert len(sample) >= 400 and {mutant.room for mutant in sample} == set(mutants.ROOMS)
    assert len({mutant.key for mutant in sample}) == len(sample)
    reasons = mutants.equivalents()
    # new code takes places in the sample, so that not all of them need to be in it
    root = mutants.SRC / mutants.PACKAGE
    files = {reason.split(": ")[0] for reason in reasons}
    changes = [mutant for file in files for mutant in mutants.mutants_of((root / file).read_bytes(), file)]
    assert set(reasons) <= {f"{mutant.file}: {mutant.after}" for mutant in changes} and all(reasons.values())
    assert len(reasons) <= 0.1 * len(sample)
