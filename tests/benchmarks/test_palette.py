"""The colours of labels and of the strip can be told apart by the colour-blind, and in grey."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "palette.py"
LEAST, LEAST_IN_GREY = 15.0, 12.0  # CIEDE2000 and CIE lightness; 2.3 is what one can just see


@pytest.fixture(scope="module")
def palette() -> ModuleType:
    spec = importlib.util.spec_from_file_location("palette", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_distances_are_those_of_known_pairs(palette: ModuleType) -> None:
    assert palette.distances((0, 0, 0), (255, 255, 255)) == pytest.approx(
        dict.fromkeys((*palette.SIMULATED, "grey"), 100.0), abs=0.1
    )
    red_and_green = palette.distances((200, 70, 60), (120, 120, 50))
    assert red_and_green["full colour"] > 35 and red_and_green["deuteranopia"] < 10


@pytest.mark.parametrize("name", ["lesions", "lungs", "states of slices"])
def test_no_two_colours_look_the_same(palette: ModuleType, name: str) -> None:
    for sight, (value, names) in palette.least()[name].items():
        assert value >= (LEAST_IN_GREY if sight == "grey" else LEAST), (sight, names)


def test_an_outline_is_seen_on_every_lung(palette: ModuleType) -> None:
    nearest = palette.least()["outlines on lungs"]
    assert min(nearest[sight][0] for sight in palette.SIMULATED) >= 10, nearest
