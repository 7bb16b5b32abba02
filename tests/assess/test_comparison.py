"""Means, intervals and differences of stored runs, against values worked out by hand."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from napari_covseg.assess.comparison import LEAK, difference, read_networks, write_record
from napari_covseg.assess.tables import network_record, network_tables, not_trained
from napari_covseg.errors import JobError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
papers = importlib.import_module("network_tables")

DICE = {"anna": 0.5, "bert": 0.6, "cleo": 0.8, "dora": 0.7}


def made_row(patient: str, dice: float, slices: int = 3) -> dict[str, Any]:
    """A row with a lesion Dice of `dice`: its first slice is so, on the others there is nothing."""
    both = round(1000 * dice)
    lesion = {"assd": 2 * dice, "hd95": 4.0, "surface_dice": dice}
    lesion["by_slice"] = [[both, 1000 - both, 1000 - both]] + [[0, 0, 0]] * (slices - 1)
    lesion["assd_by_slice"] = [2 * dice] + [None] * (slices - 1)
    lungs = {**lesion, "by_slice": [[1000, 0, 0]] * slices}
    return {"patient": patient, "slices": slices, "lungs": lungs, "lesion": lesion}


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Write runs of one network: a fold for each patient."""

    def write(recipe: str, dice: dict[str, float], protocol: str = "patient", folds: int = 0) -> Path:
        for k, (patient, value) in enumerate(dice.items()):
            record = {
                "format": 1,
                "recipe": recipe,
                "protocol": protocol,
                "fold": str(k + 1),
                "folds": [str(j + 1) for j in range(folds or len(dice))],
                "network": {"name": "unet", "settings": {}},
                "parameters": 4_138_769,
                "gmac_256": 3.576,
                "size": 128,
                "batch": 8,
                "steps": 100 + k,
                "seconds": 60,
                "device": "cpu",
                "asked": {},
                "grid": 100,
                "rows": [made_row(patient, value)],
            }
            write_record(tmp_path / protocol / recipe / f"fold{k + 1}.json", record)
        return tmp_path

    return write


def test_means_over_patients(store: Callable[..., Path]) -> None:
    (one,) = read_networks(store("amer2021-unet", DICE))
    mean = one.mean("lesion", "dice")
    values = np.array(list(DICE.values()))
    assert mean.mean == pytest.approx(values.mean())
    assert mean.sd == pytest.approx(values.std(ddof=1))
    assert 0.5 <= mean.low < mean.mean < mean.high <= 0.8
    assert (mean.n, mean.empty) == (4, 0)
    assert one.mean("lesion", "jaccard").mean == pytest.approx((values / (2 - values)).mean())
    assert one.mean("lesion", "assd").mean == pytest.approx(2 * values.mean())
    assert one.mean("lungs", "dice").mean == 1
    assert papers.over_all(one, "lesion") == pytest.approx(values.mean())  # of masks alike in size
    assert one.by_patient("lesion", "dice") == pytest.approx(DICE)
    assert one.complete


def test_means_over_slices_and_what_empty_masks_do(store: Callable[..., Path]) -> None:
    folder = store("amer2021-unet", DICE)
    path = folder / "patient/amer2021-unet/fold1.json"
    record = json.loads(path.read_text())
    record["rows"][0]["lesion"]["by_slice"][2] = [0, 7, 0]  # found where there is nothing
    write_record(path, record)
    (one,) = read_networks(folder)
    total = sum(DICE.values())
    infected, every, agree = (
        papers.by_slice(one, "lesion", **options) for options in ({"infected": True}, {}, {"empty": "agree"})
    )
    assert (infected.value, infected.n, infected.empty) == (pytest.approx(total / 4), 4, 0)
    assert (every.value, every.n, every.empty) == (pytest.approx(total / 5), 5, 7)
    assert (agree.value, agree.n, agree.empty) == (pytest.approx((total + 7) / 12), 12, 7)
    agree = papers.by_slice(one, "lesion", "sensitivity", empty="agree")
    assert (agree.value, agree.n, agree.empty) == (pytest.approx((total + 7) / 12), 12, 8)
    assert papers.by_slice(one, "lesion", "specificity").n == 12
    distance = papers.by_slice(one, "lesion", "assd")
    assert (distance.value, distance.n, distance.empty) == (pytest.approx(2 * total / 4), 4, 8)
    assert (
        papers.by_slice(one, "lesion", "assd", empty="agree").n == 11
    )  # with one empty mask there is no distance


def test_a_patient_without_a_value_is_left_out(store: Callable[..., Path]) -> None:
    folder = store("amer2021-unet", DICE)
    path = folder / "patient/amer2021-unet/fold1.json"
    record = json.loads(path.read_text())
    record["rows"][0]["lesion"] |= {"by_slice": [[0, 0, 0]] * 3, "assd": None}
    write_record(path, record)
    (one,) = read_networks(folder)
    for metric in ("dice", "assd", "sensitivity"):
        mean = one.mean("lesion", metric)
        assert (mean.n, mean.empty) == (3, 1)
    assert one.mean("lesion", "dice").mean == pytest.approx(0.7)
    assert math.isnan(one.by_patient("lesion", "dice")["anna"])
    assert "(1 left out)" in network_tables([one])


def test_slices_of_a_patient_in_several_folds_are_pooled(store: Callable[..., Path]) -> None:
    folder = store("amer2021-unet", {"anna": 0.5, "bert": 0.6}, "slice")
    path = folder / "slice/amer2021-unet/fold2.json"
    record = json.loads(path.read_text())
    record["rows"].append(made_row("anna", 0.9, 6))
    write_record(path, record)
    (one,) = read_networks(folder)
    assert one.by_patient("lesion", "dice") == pytest.approx({"anna": 0.7, "bert": 0.6})
    assert one.by_patient("lesion", "assd")["anna"] == pytest.approx((3 * 1.0 + 6 * 1.8) / 9)
    assert one.slices() == {"anna": 9, "bert": 3}


def test_differences_are_by_patient(store: Callable[..., Path]) -> None:
    store("amer2021-unet", DICE)
    folder = store("amer2021-rdunet", {"anna": 0.6, "bert": 0.8, "cleo": 0.85, "emil": 0.1})
    best, other = read_networks(folder)
    assert (best.recipe, other.recipe) == ("amer2021-unet", "amer2021-rdunet")  # 0.65 against 0.59
    told = difference(other, best)
    assert told.n == 3
    assert told.mean == pytest.approx((0.1 + 0.2 + 0.05) / 3)
    assert 0.0499 < told.low <= told.mean <= told.high < 0.2001
    assert told.p == pytest.approx(stats.wilcoxon([0.1, 0.2, 0.05]).pvalue)
    assert difference(best, best).p == 1
    assert difference(best, best).mean == 0


def test_tables(store: Callable[..., Path]) -> None:
    store("amer2021-unet", DICE)
    folder = store("salehi2022-unet", {name: dice - 0.1 for name, dice in DICE.items()}, folds=5)
    networks = read_networks(folder)
    text = papers.papers_tables(networks)
    assert network_tables(networks).strip() in text
    assert "| amer2021-unet | 4.139 | 3.58 | 128² | 100–103 | 1.0 | cpu | 4 of 4 | 1.000 ± 0.000" in text
    assert "| 4 of 5 | 1.000 ± 0.000" in text
    assert "0.650 ± 0.129" in text
    assert "| Network | anna (3) | bert (3) | cleo (3) | dora (3) |" in text
    assert "| salehi2022-unet | 0.400 | 0.500 | 0.700 | 0.600 |" in text
    assert "### Against amer2021-unet" in text
    assert "| salehi2022-unet | 4 | -0.100 (-0.100 to -0.100) | 0.125 |" in text
    assert "Split by slice" not in text
    assert "| 0.650 | 0.650 | 0.650 (4; 0) | 0.650 (4; 8) | 0.883 (12; 8) |" in text
    assert not_trained(networks)[0] == "amer2021-unet-256"
    assert f"Not trained: {', '.join(not_trained(networks))}." in text
    assert "Not trained: mine.\n" in papers.papers_tables(networks, ["amer2021-unet", "mine"])


def test_the_leak_is_told_beside_its_warning(store: Callable[..., Path]) -> None:
    store("amer2021-unet", DICE)
    store("amer2021-rdunet", {"anna": 0.9}, "slice")
    folder = store("amer2021-unet", dict.fromkeys(DICE, 0.9), "slice")
    networks = read_networks(folder)
    text = network_tables(networks)
    assert f"### Split by slice, as in the papers\n\n**{LEAK}** Dice pooled" in text
    text = papers.papers_tables(networks)
    assert text.count(LEAK) == 1
    assert "| +0.250 (" in text
    assert "| 0.650 → 0.900 |" in text
    assert "| amer2021-rdunet | 1 of 1 | – |" in text
    assert "amer2021-rdunet" in not_trained(networks)  # by slice alone is not enough
    record = papers.papers_record(networks)
    assert [one["network"] for one in record["leak"]] == ["amer2021-unet"]
    assert record["leak"][0]["mean"] == pytest.approx(0.25)


def test_the_record_for_machines(store: Callable[..., Path]) -> None:
    networks = read_networks(store("amer2021-unet", {"anna": 0.5}))
    every = papers.papers_record(networks)
    assert json.loads(json.dumps(every, allow_nan=False)) == every
    assert every["networks"][0]["averages"]["lesion"]["pooled"] == 0.5
    record = network_record(networks)
    (one,) = record["networks"]
    assert one["lesion"]["dice"] == {"mean": 0.5, "sd": None, "low": 0.5, "high": 0.5, "n": 1, "empty": 0}
    assert (one["folds"], one["of_folds"], one["gmac_256"]) == (["1"], ["1"], 3.576)
    assert one["patients"] == {"anna": {"slices": 3, "lungs": 1.0, "lesion": 0.5}}


def test_no_runs(tmp_path: Path) -> None:
    assert read_networks(tmp_path) == []
    assert network_tables([]).startswith("Not trained: ")
    with pytest.raises(JobError, match="no stored runs"):
        papers.draw_boxes([], tmp_path / "boxes.png")


def test_the_command_prints_and_draws(
    store: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store("amer2021-unet", DICE)
    monkeypatch.setattr(sys, "argv", ["network_tables.py", str(folder), "--recipe", "amer2021-unet"])
    papers.main()
    assert capsys.readouterr().out == papers.papers_tables(read_networks(folder), ["amer2021-unet"])
    monkeypatch.setattr(sys, "argv", ["network_tables.py", str(folder), "--json"])
    papers.main()
    assert json.loads(capsys.readouterr().out)["leak"] == []


def test_box_plots(store: Callable[..., Path], tmp_path: Path) -> None:
    folder = store("amer2021-unet", DICE)
    papers.draw_boxes(read_networks(folder), tmp_path / "pictures" / "boxes.svg")
    assert "amer2021-unet" in (tmp_path / "pictures" / "boxes.svg").read_text()
    with pytest.raises(JobError, match="cannot be written"):
        papers.draw_boxes(read_networks(folder), tmp_path / "boxes.unknown")


def known(*slices: list[int] | None) -> dict[str, Any]:
    distances = {"assd": 1.0, "hd95": 1.0, "surface_dice": 1.0}
    return {
        **distances,
        "by_slice": list(slices),
        "assd_by_slice": [None if one is None else 1.0 for one in slices],
    }


@pytest.fixture
def left_out(store: Callable[..., Path]) -> Path:
    """Runs that leave out one source each: of some patients not every output is known."""
    folder = store("mine", {"anna": 0.5, "bert": 0.5}, "source")
    rows = [
        [
            {"patient": "anna", "slices": 2, "lungs": None, "ground-glass": known([3, 1, 1], None)},
            {"patient": "bert", "slices": 1, "lungs": known([9, 0, 0]), "ground-glass": known([0, 4, 0, 36])},
        ],
        [{"patient": "cleo", "slices": 1, "lungs": known([1, 1, 1, 7]), "ground-glass": None}],
    ]
    for k, (source, some) in enumerate(zip(("north", "south"), rows, strict=True)):
        path = folder / f"source/mine/fold{k + 1}.json"
        record = json.loads(path.read_text())
        outputs = ["lungs", "ground-glass"]
        write_record(path, record | {"format": 2, "fold": source, "outputs": outputs, "rows": some})
    return folder


def test_patients_of_whom_an_output_is_unknown_have_no_value(left_out: Path) -> None:
    (one,) = read_networks(left_out)
    assert one.outputs == ("lungs", "ground-glass")
    assert one.by_patient("lungs", "dice") == {"bert": 1.0, "cleo": 0.5}
    assert one.by_patient("ground-glass", "dice") == pytest.approx(
        {"anna": 0.75, "bert": math.nan}, nan_ok=True
    )
    mean = one.mean("ground-glass", "dice")
    assert (mean.mean, mean.n, mean.empty) == (0.75, 1, 1)
    assert one.painted("ground-glass") == {"bert": 10.0}
    assert one.painted("lungs") == {}
    assert one.by_patient("lungs", "specificity")["cleo"] == 7 / 8  # of the known pixels
    assert (
        papers.by_slice(one, "ground-glass").n,
        papers.by_slice(one, "ground-glass", infected=True).n,
    ) == (2, 1)
    assert papers.by_slice(one, "ground-glass", "assd").n == 2
    assert one.mean("lesion", "dice").n == 0  # nobody measured that


def test_sources_have_a_table_of_their_own(left_out: Path, tmp_path: Path) -> None:
    networks = read_networks(left_out)
    text = network_tables(networks)
    assert "### By patient" not in text
    assert "### Leave one source out" in text
    assert "| mine | north | lungs | 1 | 1.000 ± – (1.000–1.000) | 0 | – |" in text
    assert "| mine | north | ground-glass | 1 | 0.750 ± – (0.750–0.750) | 1 | 10.00 (10.00–10.00) |" in text
    assert "| mine | south | lungs | 1 | 0.500 ± – (0.500–0.500) | 0 | – |" in text
    assert "| mine | south | ground-glass" not in text
    record = network_record(networks)
    assert [(row["source"], row["label"]) for row in record["sources"]] == [
        ("north", "lungs"),
        ("north", "ground-glass"),
        ("south", "lungs"),
    ]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_labels_that_are_told_apart_have_a_table(left_out: Path) -> None:
    for path in left_out.glob("source/mine/*.json"):
        write_record(path, json.loads(path.read_text()) | {"protocol": "patient"})
    text = network_tables(read_networks(left_out))
    assert "### Each label" in text
    assert "| mine | 0.750 ± – (0.750–0.750); 1, 10.00 % in 1 |" in text
