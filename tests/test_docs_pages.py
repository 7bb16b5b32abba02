"""The generated pages: what they say is what the catalogue and the stored runs say."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from napari_covseg.assess.comparison import read_networks, write_record
from napari_covseg.models.catalogue import find
from napari_covseg.networks.catalogue import CATALOGUE, CLASSIFIERS

DOCS = Path(__file__).parent.parent / "docs"
TIMES = [
    {
        "device": "CPU (abacus)",
        "threads": 2,
        "torch": "2",
        "size": 256,
        "batch": 4,
        "rounds": 3,
        "against": "amer2021-unet",
        "networks": {
            "amer2021-unet": {"ms": 50.0, "ratio": 1.0},
            "amer2021-rdunet": {"ms": 70.25, "ratio": 1.4},
            "salehi2022-unetpp": {"ms": 500.0, "ratio": 10.0},
            "unet-lungs-lesion": {"ms": 65.0, "ratio": 1.3},
        },
    }
]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other in their own folder."""
    monkeypatch.syspath_prepend(DOCS)


def store(
    folder: Path, recipe: str, dice: dict[str, float], protocol: str = "patient", folds: int = 2
) -> None:
    """Keep a fold with one slice for each patient."""
    for fold, (patient, value) in enumerate(dice.items(), 1):
        both = round(1000 * value)
        found = {"by_slice": [[both, 1000 - both, 1000 - both]], "assd_by_slice": [1.5]}
        found |= {"assd": 1.5, "hd95": 4.0, "surface_dice": 0.5}
        record: dict[str, Any] = {
            "format": 1,
            "recipe": recipe,
            "protocol": protocol,
            "fold": str(fold),
            "folds": [str(k + 1) for k in range(folds)],
            "parameters": 4_138_769,
            "gmac_256": 3.576,
            "size": 128,
            "batch": 8,
            "steps": 1500,
            "seconds": 60,
            "device": "cpu",
            "asked": {"budget": None},
            "shortened": {"steps": 1500},
            "grid": 100,
            "rows": [{"patient": patient, "slices": 1, "lungs": found, "lesion": found}],
        }
        write_record(folder / protocol / recipe / f"fold{fold}.json", record)


def rows(page: str, name: str) -> list[list[str]]:
    """The rows of all tables that begin with a name."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith((f"| `{name}` ", f"| {name} "))
    ]


def made(folder: Path, times: list[dict[str, Any]]) -> Any:
    from make_results import PAPERS, Found

    papers = tomllib.loads(PAPERS.read_text(encoding="utf-8"))
    return Found(read_networks(folder), find("unet-lungs-lesion").card, times, papers)


def test_results_of_made_up_runs(tmp_path: Path) -> None:
    from make_results import page, papers_tables

    store(tmp_path, "amer2021-unet", {"anna": 0.5, "bert": 0.7})
    store(tmp_path, "amer2021-unet", {"anna": 0.8, "bert": 0.8}, "slice")
    store(tmp_path, "amer2021-rdunet", {"anna": 0.9})
    found = made(tmp_path, TIMES)
    text = page(found)
    unet, rdunet = (rows(text, f"amer2021-{name}")[0] for name in ("unet", "rdunet"))
    assert unet == ["`amer2021-unet`", *["0.600 (0.500–0.700)"] * 2, "2 of 2", "4.139", "3.58", "50.0"]
    assert rdunet == ["`amer2021-rdunet`", *["0.900 (0.900–0.900)"] * 2, "1 of 2", "4.558", "4.40", "70.2"]
    assert text.index("| `amer2021-unet` ") < text.index("| `amer2021-rdunet` ")  # complete ones first
    assert papers_tables(found.networks).strip() in text
    assert (
        f"Trained so far: 2 of {len(CATALOGUE)} networks, 1 of them on all folds; slices of 128²" in text
        and "**shortened**" in text
        and "fewer patients" in text
    )
    assert rows(text, "salehi2022-unetpp")[0] == [
        "`salehi2022-unetpp`", "not trained", "", "", "9.045", "29.76", "500.0"
    ]  # fmt: skip
    (reported,) = (row for row in rows(text, "amer2021-unet") if "0.772" in row)
    assert reported[-2:] == ["0.600 (0.500–0.700)", "0.800 (0.800–0.800)"]
    (default,) = (line for line in text.splitlines() if line.startswith("| **Plain U-Net of our own**"))
    dice = find("unet-lungs-lesion").card.scores["cross-validation"]["lesions Dice"]
    assert f" {dice:.3f} (" in default and "| 65.0 |" in default
    (slowest,) = (row for row in rows(text, "salehi2022-unetpp") if row[-1] == "10.00")
    assert slowest[-2] == "500.0"


def test_results_without_runs_and_times(tmp_path: Path) -> None:
    from make_results import page

    text = page(made(tmp_path, []))
    assert "No network has been trained for this table yet" in text and "## Side by side" not in text
    assert all(rows(text, entry.name)[0][1] == "not trained" for entry in CATALOGUE)
    assert "ms per slice |" not in text
    for entry in CATALOGUE:
        assert f"--recipe {entry.name}" in text


def test_each_rule_that_is_followed_has_its_row() -> None:
    from make_results import RULES as STORED
    from make_results import rules

    from napari_covseg.predict.options import RULES

    stored = json.loads(STORED.read_text(encoding="utf-8"))
    text = rules(stored)
    for rule in RULES:
        both = rows(text, f"{rule}, after the others")
        assert len(both) == 2 and sum(len(row) for row in both) == len(stored["heads"]) + 1
        assert len(rows(text, f"{rule}, alone")) == 2
    assert text in (DOCS / "results.md").read_text(encoding="utf-8"), "Write it again: make_results.py"
    assert rules({}) == ""


def test_models_to_install_stand_in_a_table_with_those_that_were_measured_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    import ship_weights

    folder = DOCS.parent / "weights"
    again = "Write it again: python benchmarks/ship_weights.py --list"
    assert ship_weights.figures(folder) in (folder / "README.md").read_text("utf-8"), again
    kept = {"lesion Dice": 0.5, "lesion Dice 95 % interval": [0.4, 0.6]}
    protocols = {
        "a": "anna, bert: evaluate.py weights/a.safetensors",
        "b": "anna: evaluate.py weights/b.safetensors",
    }
    protocols["c"] = protocols["a"].replace("a.safe", "c.safe")
    for name in protocols:
        (tmp_path / f"{name}.safetensors").touch()
    cards = {
        name: SimpleNamespace(scores={"window": {**kept, "protocol": p}}) for name, p in protocols.items()
    }
    monkeypatch.setattr(ship_weights, "read_card", lambda path: cards[path.stem])
    first, second = ship_weights.figures(tmp_path).split("**Window**")[1:]
    assert rows(first, "a") == [["`a`", "0.500 (0.400–0.600)"]] and rows(first, "c") and not rows(first, "b")
    assert rows(second, "b") and "MODEL" in second


def test_the_papers_figures_belong_to_networks_and_the_marked_are_impossible() -> None:
    told = tomllib.loads((DOCS / "paper_figures.toml").read_text(encoding="utf-8"))
    entries = {entry.name: entry for entry in CATALOGUE}
    for one in told["figure"]:
        assert entries[one["network"]].paper in {paper["name"] for paper in told["paper"]}
        if "jaccard" in one:
            jaccard, dice = (float(one[metric].split()[0]) for metric in ("jaccard", "dice"))
            assert (jaccard > dice) == ("jaccard" in one.get("impossible", []))


def test_the_front_is_made_of_those_that_no_quicker_one_beats() -> None:
    from results_pictures import front

    points = [("c", 3.0, 0.8, 0.7, 0.9), ("a", 1.0, 0.5, 0.4, 0.6), ("b", 2.0, 0.4, 0.3, 0.5)]
    assert [point[0] for point in front(points)] == ["a", "c"]


def test_the_page_of_the_networks_is_up_to_date() -> None:
    from make_networks import TEXTS, own, page

    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    again = "Write it again: python docs/make_networks.py"
    assert text == page(tomllib.loads(TEXTS.read_text(encoding="utf-8"))), again
    for entry in CATALOGUE:
        (row,) = rows(text, entry.name)
        assert row[2:] == [f"{entry.parameters:,}", f"{entry.gmac:.3f}"], again
    for entry in CLASSIFIERS:
        (row,) = rows(text, entry.name)
        assert row[2] == ", ".join(entry.classes), again
        assert row[3:] == [f"{entry.parameters:,}", f"{entry.gmac:.3f} at {entry.size}²"], again
    for entry in own():
        picture = (DOCS / "images" / "networks" / f"{entry.name}.svg").read_text(encoding="utf-8")
        widths = [*entry.settings.get("features", []), entry.settings.get("bottleneck", 0)]
        assert {str(width) for width in widths if width} <= set(re.findall(r">(\d+)<", picture)), again


def test_a_trace_tells_what_feeds_what() -> None:
    from network_trace import INPUT, Edge, Map, trace

    from napari_covseg.networks.unet import UNet

    network = UNet(features=(4, 8), bottleneck=16)
    stages = ["encoders.0", "encoders.1", "bottom", "decoders.0", "decoders.1", "head"]
    maps, edges = trace(network, stages)
    assert maps["encoders.1"] == Map(8, 128) and maps["bottom"] == Map(16, 64)
    assert {(edge.source, edge.target) for edge in edges} == {
        (INPUT, "encoders.0"),
        ("encoders.0", "encoders.1"),
        ("encoders.1", "bottom"),
        ("bottom", "decoders.0"),
        ("encoders.1", "decoders.0"),
        ("decoders.0", "decoders.1"),
        ("encoders.0", "decoders.1"),
        ("decoders.1", "head"),
    }
    assert Edge("encoders.0", "encoders.1", frozenset({"MaxPool2DWithIndices"})) in edges
    assert not any(module._forward_hooks for module in network.modules())


def test_the_page_of_recognition_says_what_is_left_without_the_source(tmp_path: Path) -> None:
    import make_recognition

    def figure(value: float) -> list[float]:
        return [value, value - 0.1, value + 0.1]

    def run(data: str, recipe: str, values: dict[str, float]) -> dict[str, Any]:
        names = ("auc", "accuracy", "sensitivity", "specificity", "f1", "mcc", "brier")
        assessed = [
            {
                "protocol": protocol,
                "figures": {"pictures": 9, "patients": 4, "confusion": [[3, 1], [2, 3]]}
                | {name: figure(value) for name in names},
                "reliability": [[0.2, 0.3, 4], [0.8, 0.6, 5]],
            }
            for protocol, value in values.items()
        ]
        named = {"name": recipe, "network": "efficientnetlite0"}
        return {"data": data, "outputs": ["COVID-19", "normal"], "recipe": named, "assessed": assessed}

    ways = ("by patient", "by picture", "borders only, by patient", "one website left out", "within a.org")
    runs = [
        run(
            "recognition_children",
            "elbana2020-tiny",
            dict(zip(ways, (0.95, 0.96, 0.94, 0.5, 0.5), strict=True)),
        ),
        run("recognition", "covseg-tiny", dict(zip(ways, (0.61, 0.7, 0.6, 0.45, 0.52), strict=True))),
    ]
    told = {"within": "a.org", "remedy": "none"}
    told |= {"figures": {"pictures": 9, "patients": 4, "auc": figure(0.57), "accuracy": figure(0.6)}}
    finding = {"slices": 8, "shown": 4, "patients": 2, "auc": figure(0.9)}
    finding |= {"sensitivity": figure(0.8), "specificity": [None, None, None]}
    slices = {"data": "manifestations", "outputs": ["consolidation"]}
    slices |= {"recipe": {"name": "covseg-m", "network": "efficientunetfindings"}}
    slices |= {"assessed": [{"protocol": "by fold, x", "figures": {"consolidation": finding}}]}
    text = make_recognition.page([*runs, {"told": [told]}, slices])
    paragraph = text.split("\n\n")[2]
    assert "99.4%" in paragraph and "0.950 (0.850–1.050) here" in paragraph
    assert "0.450 (0.350–0.550) for websites that did not teach" in paragraph
    assert "0.520 (0.420–0.620) within a.org" in paragraph
    assert "children of one hospital, the bacterial ones of seven patients" in text
    assert "| a.org | none | 9 of 4 | 0.570 (0.470–0.670) |" in text
    assert "| by fold, x | consolidation | 4 of 8 | 2 | 0.900 (0.800–1.000) |" in text
    pytest.importorskip("matplotlib")
    names = make_recognition.draw_all(runs, tmp_path)
    assert names == [f"recognition-{one['data']}-{one['recipe']['name']}.svg" for one in runs]
    assert (tmp_path / names[0]).stat().st_size > 1000


def test_the_page_of_recognition_is_up_to_date() -> None:
    import make_recognition

    runs = [json.loads(path.read_text("utf-8")) for path in sorted(make_recognition.RUNS.glob("*.json"))]
    pictures = sorted(path.name for path in (DOCS / "images").glob("recognition-*.svg"))
    again = "Write it again: python docs/make_recognition.py"
    assert (DOCS / "recognition.md").read_text("utf-8") == make_recognition.page(runs, pictures), again
