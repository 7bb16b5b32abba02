"""``benchmarks/evaluate.py``: what it measures of pictures that say themselves what is on them."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from napari_covseg.models.card import read_card
from napari_covseg.models.file import load_network, save_model

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "evaluate.py"
LUNG, GGO, CONSOLIDATION = 100, 150, 200
SIDE = 16


def honest(scan: Any, model: Any, **_: Any) -> tuple[np.ndarray, np.ndarray]:
    """Say of each voxel what its grey value means, in HU by the scale of the lung-window pictures."""
    grey = scan.voxels if scan.intensity == "grey" else np.round((scan.voxels + 1350) / 5.9)
    lesions = np.zeros(grey.shape, np.uint8)
    apart = "ground-glass" in model.card.outputs
    lesions[np.abs(grey - GGO) < 5] = 2 if apart else 1
    lesions[np.abs(grey - CONSOLIDATION) < 5] = 3 if apart else 1
    return ((grey > LUNG - 5) * 3).astype(np.uint8), lesions


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("evaluate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "evaluate", module)  # dataclasses look there
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "predict_volume", honest)
    monkeypatch.setattr(module.torch, "set_num_threads", lambda number: None)
    return module


@pytest.fixture
def other_file(model_file: Path, tmp_path: Path) -> Path:
    """A model that tells findings apart, and has seen other patients."""
    network, card = load_network(model_file)
    outputs = ("ground-glass", "consolidation")
    split = {"training": ["anna", "covid_semiseg A"], "validation": [], "test": ["bert"]}
    changed = replace(card, id="apart", outputs=outputs, thresholds=dict.fromkeys(outputs, 0.5), split=split)
    save_model(tmp_path / "apart.safetensors", network, changed)
    return tmp_path / "apart.safetensors"


def slice_(*bands: int) -> np.ndarray:
    """Return a picture of four bands, each a quarter of it."""
    return np.repeat(np.array(bands, np.uint8), SIDE * SIDE // 4).reshape(SIDE, SIDE)


def keep(path: Path, values: np.ndarray) -> None:
    """Write a picture without a loss, whatever its name says: the honest one reads grey values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, format="PNG")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures of each half; two patients with two labelled slices, a free one and an unknown one."""
    root = tmp_path / "data"
    for number in (0, 1, 40, 41):
        for folder, values in (
            ("images", slice_(0, LUNG, GGO, CONSOLIDATION)),
            ("masks", slice_(0, 0, 1, 2) if number != 41 else slice_(0, 1, 1, 0)),
        ):
            keep(root / "covid_semiseg" / folder / f"{number}.png", values)
    for name, missed in (("anna", 0), ("bert", 1)):
        rows = ["slice,status,png256_slice"]
        for z, status in enumerate(("no_lesion_inferred", "lesion_mask", "unknown", "lesion_mask")):
            lesion = status == "lesion_mask"
            rows.append(f"{z:04},{status},{700 + z if lesion else ''}")
            images = {"ct": slice_(0, LUNG, GGO if z in (0, 1) or not missed else LUNG, LUNG)}
            if lesion:
                images |= {"lungs": slice_(0, 9, 9, 9), "infection": slice_(0, 0, 9, 0)}
            for folder, values in images.items():
                picture = "jpg" if folder == "ct" else "png"
                keep(root / "radiopaedia_lungwindow" / name / folder / f"{z:04}.{picture}", values)
                if lesion:
                    keep(root / "covid_png256" / name / folder / f"{700 + z:04}.png", values)
                    keep(root / "covid_png256" / "anna" / folder / "0790.png", values)
        (root / "radiopaedia_lungwindow" / name / "slices.csv").write_text(
            "\n".join(rows).replace(",7", ",07")
        )
    return root


def ask(evaluate: ModuleType, capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    evaluate.main([*map(str, words), "--json"])
    told = json.loads(capsys.readouterr().out)
    told["rows"] = {(r["set"], r["label"], r["figure"], r["taught"]): r for r in told["rows"]}
    return told


def test_pictures_and_their_halves(
    evaluate: ModuleType, data: Path, other_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ask(evaluate, capsys, other_file, "--data", data, "--on", "pictures,upright")["rows"]
    # half A was taught: it stands apart from half B
    assert rows["pictures A", "lesion", "dice", True]["n"] == 2
    assert ("pictures A", "lesion", "dice", False) not in rows
    blind = rows["pictures", "lesion", "dice", False]
    assert (blind["n"], blind["mean"], blind["patients"]) == (2, 0.75, ["covid_semiseg B"])
    assert rows["pictures", "lesion", "dice", True]["patients"] == ["covid_semiseg A"]
    assert rows["pictures B", "ground-glass", "dice", False]["mean"] == pytest.approx((1 + 2 / 3) / 2)
    assert rows["pictures B", "consolidation", "dice", False]["n"] == 1  # one picture has none
    assert rows["upright B", "lesion", "dice", False]["mean"] == 0.75
    assert ("pictures", "lungs", "dice", False) not in rows
    few = ask(evaluate, capsys, other_file, "--data", data, "--on", "pictures", "--left-out-only")
    assert few["slices"] == 2
    assert all(not taught for *_, taught in few["rows"])


def test_patients_in_three_guises(
    evaluate: ModuleType, data: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ask(evaluate, capsys, model_file, "--data", data, "--on", "window,equalised,hu,png256")
    rows = told["rows"]
    for name in ("window", "hu", "equalised"):
        blind, taught = (rows[name, "lesion", "dice", seen] for seen in (False, True))
        assert (blind["patients"], taught["patients"]) == (["anna"], ["bert"])  # bert chose the weights
        assert (blind["mean"], taught["mean"]) == (1.0, pytest.approx(2 / 3))
        assert rows[name, "lungs", "dice", False]["mean"] == 1.0
    assert rows["window", "lesion", "painted", False]["mean"] == pytest.approx(100 / 3)
    assert ("equalised", "lesion", "painted", False) not in rows
    # without what is unknown; what both folders have; whole series; all that lies there
    assert told["slices"] == 2 * 3 + 2 * 2 + 2 * 4 + 5
    assert rows["png256", "lesion", "dice", False]["patients"] == ["anna"]


def test_of_several_models_the_one_that_has_not_seen_the_patient(
    evaluate: ModuleType, data: Path, model_file: Path, other_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", data, "--on", "window"]
    told = ask(evaluate, capsys, model_file, other_file, *words)
    row = told["rows"]["window", "lesion", "dice", False]
    assert (row["patients"], row["mean"]) == (["anna", "bert"], pytest.approx(5 / 6))
    paired = ask(evaluate, capsys, model_file, "--against", other_file, *words)["rows"]
    assert {key[3] for key in paired} == {True}  # nobody is new to both
    row = paired["window", "lesion", "dice", True]
    assert (row["n"], row["difference"]) == (2, {"mean": 0.0, "low": 0.0, "high": 0.0})
    assert ("window", "lungs", "dice", True) not in paired  # the other one does not find them
    evaluate.main(list(map(str, [model_file, "--against", other_file, *words])))
    assert (
        "| window | lesion | Dice | taught | 2 | 0.833 (0.667–1.000) | 0.833 | +0.000 (+0.000 to +0.000) |"
        in (capsys.readouterr().out)
    )


def test_findings_are_kept_to_lungs_that_a_model_has_found(
    evaluate: ModuleType,
    data: Path,
    model_file: Path,
    other_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    """Of a model without lungs; a patient whom the one for the lungs has seen is taught."""
    finders = []

    def watched(scan: Any, model: Any, **rest: Any) -> tuple[np.ndarray, np.ndarray]:
        finders.append(model.lungs_from.card.id if model.lungs_from else None)
        return honest(scan, model)

    monkeypatch.setattr(evaluate, "predict_volume", watched)
    words = [other_file, "--data", data, "--on", "window"]
    assert ask(evaluate, capsys, *words)["lungs"] == "nobody's: findings may lie anywhere"
    assert (
        ask(evaluate, capsys, model_file, *words[1:], "--lungs-from", model_file)["lungs"]
        == "the model's own"
    )
    assert set(finders) == {None}
    del finders[:]
    blind, both = (
        dict(ask(evaluate, capsys, *words, *more)["rows"]) for more in ([], ["--lungs-from", model_file])
    )
    assert set(finders[2:]) == {"tiny"}
    assert blind["window", "lesion", "dice", False]["patients"] == ["bert"]
    assert ("window", "lesion", "dice", False) not in both  # bert chose the weights of the other
    evaluate.main([*map(str, words), "--lungs-from", str(model_file)])
    assert "\nLungs: tiny\n" in capsys.readouterr().out


def test_what_is_painted_where_nothing_is(evaluate: ModuleType, model_file: Path) -> None:
    grey = np.stack([slice_(LUNG, LUNG, GGO, CONSOLIDATION)] * 2).astype(np.int16)
    scan = evaluate._scan(np.round(grey * 5.9 - 1350).astype(np.int16), (5.0, 1.0, 1.0), "chest")
    nodule = np.zeros(grey.shape, bool)
    nodule[:, -SIDE // 4 :] = True
    part = evaluate.Part(scan, free=[0], left_out=nodule)
    models = evaluate.Models([str(model_file)], "cpu", "found", {})
    case = evaluate.Case(("lidc",), "chest", "chest", [part])
    assert models.measure(case) == {("lesion", "painted"): pytest.approx(100 / 3)}
    assert not models.taught("chest")


def test_pictures_may_be_taken_otherwise_than_they_are_found(
    evaluate: ModuleType, data: Path, model_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    seen = []

    def watched(scan: Any, model: Any, *, appearance: Any, **rest: Any) -> tuple[np.ndarray, np.ndarray]:
        seen.append((appearance.turned, appearance.equalised))
        return honest(scan, model)

    monkeypatch.setattr(evaluate, "predict_volume", watched)
    blank = evaluate.Appearance("grey", kind="blank", turned=90)
    monkeypatch.setattr(evaluate, "look", lambda voxels, intensity: blank)
    words = [model_file, "--data", data, "--on", "pictures", "--seen-as"]
    assert ask(evaluate, capsys, *words, "found")["refused"] == ["0", "1", "40", "41"]
    ask(evaluate, capsys, *words, "equalised", "--against", model_file, "--against-seen-as", "plain")
    assert seen == [(90, False)] * 4 + [(0, True), (0, False)] * 4
    evaluate.main(list(map(str, [*words, "found"])))
    assert "as no chest CT: 0, 1, 40, 41" in capsys.readouterr().out


def test_only_the_patients_of_a_fold(evaluate: ModuleType) -> None:
    others = evaluate._of_other_folds("1")
    assert "radiopaedia_a" in others and "radiopaedia_d" not in others
    assert evaluate._of_other_folds(None) == set()
    with pytest.raises(SystemExit, match="no fold 9"):
        evaluate._of_other_folds("9")


def test_wrong_names(evaluate: ModuleType, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.main([str(model_file), "--on", "x-rays"])
    assert "there is no x-rays" in capsys.readouterr().err
    assert read_card(model_file).id == "tiny" and torch.get_num_threads() > 0


def test_only_blind_figures_go_into_a_card(evaluate: ModuleType) -> None:
    for_card = evaluate.for_card
    row = {"set": "phantoms", "label": "lungs", "figure": "dice", "mean": 0.98012, "low": 0.97, "high": 0.99}
    seen = row | {"taught": True, "n": 2, "patients": ["anna"], "mean": 1.0}
    unseen = row | {"taught": False, "n": 2, "patients": ["cleo", "bert"]}
    assert for_card([seen], "phantoms", []) == {}
    assert for_card([seen, unseen], "lidc", []) == {}
    assert for_card([seen, unseen], "phantoms", ["covseg", "--on", "phantoms"]) == {
        "lungs Dice": 0.9801,
        "lungs Dice 95 % interval": [0.97, 0.99],
        "protocol": "bert, cleo: python benchmarks/evaluate.py covseg --on phantoms",
    }
    (alone,) = for_card([unseen | {"n": 1}], "phantoms", []).keys() - {"protocol"}
    assert alone == "lungs Dice"
