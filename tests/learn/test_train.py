"""A run learns, goes on where it was interrupted, and refuses what it cannot go on from."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_covseg.errors import ModelError
from napari_covseg.learn import sampling as sampling_module
from napari_covseg.learn import train as train_module
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.sampling import sampling_weights, slab
from napari_covseg.learn.score import probabilities, score
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.learn.train import TrainedNetwork, TrainingProgress, _write_progress, train
from napari_covseg.models.forward import as_input


def run(
    recipe: Recipe, data: LabelledSlices, validation: LabelledSlices | None = None, **options: Path
) -> tuple[list[TrainingProgress], nn.Module]:
    *told, trained = train(recipe, data, validation, **options)  # type: ignore[arg-type]
    assert isinstance(trained, TrainedNetwork)
    return told, trained.network  # type: ignore[return-value]


def interrupt(
    recipe: Recipe, data: LabelledSlices, validation: LabelledSlices | None, at: int, checkpoint: Path
) -> None:
    running = train(recipe, data, validation, checkpoint=checkpoint)
    for told in running:
        if isinstance(told, TrainingProgress) and told.step == at:
            break
    running.close()  # type: ignore[attr-defined]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_the_loss_falls_and_the_masks_are_found(data: LabelledSlices, recipe: Recipe) -> None:
    longer = dataclasses.replace(
        recipe, steps=40, batch=2, learning_rate=3e-2, average=0.8, validate_every=20
    )
    told, network = run(longer, data.only({"anna", "bert"}), data.only({"cleo"}))
    assert told[-1].loss < 0.6 * told[0].loss
    validated = [progress for progress in told if progress.validation]
    assert [progress.step for progress in validated] == [20, 40]
    assert validated[-1].validation is not None
    assert validated[-1].validation["lungs"] > 0.6
    assert not network.training


def test_progress_every_ten_steps_and_at_validations(data: LabelledSlices, recipe: Recipe) -> None:
    told, _ = run(recipe, data)
    assert [progress.step for progress in told] == [6, 10, 12, 16]
    assert all(progress.steps == 16 and np.isfinite(progress.loss) for progress in told)
    assert all(progress.validation is None for progress in told)
    assert [progress.best for progress in told] == [True, False, True, True]  # the last ones are kept


@pytest.mark.slow
# right at a checkpoint, and four steps after it
@pytest.mark.parametrize(("at", "augmentation"), [(6, "flips-zoom"), (10, "covseg")])
@pytest.mark.xdist_group("monai")  # see test_augment
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path, at: int, augmentation: str
) -> None:
    recipe = dataclasses.replace(recipe, augmentation=augmentation)
    training, validation = data.only({"anna", "bert"}), data.only({"cleo"})
    told, network = run(recipe, training, validation)
    interrupt(recipe, training, validation, at, tmp_path / "a.checkpoint")
    again, resumed = run(recipe, training, validation, checkpoint=tmp_path / "a.checkpoint")
    assert again[0].step == 10
    assert same(network, resumed)
    assert [p.validation for p in told if p.step > 10] == [p.validation for p in again if p.step > 10]
    assert [p.best for p in told if p.step > 10] == [p.best for p in again if p.step > 10]


PLATEAU = Recipe(
    "tiny", "rdunet", settings={"features": [2], "bottleneck": 4}, preparation={"size": 32}, loss="dice",
    optimiser="sgd", learning_rate=2.0, schedule="plateau", plateau=1, min_rate=1e-3, patience=3,
    epochs=30, batch=3, augmentation="flips-zoom", selection="loss",
)  # fmt: skip
"""Drops neurons at random, lowers its rate where it gets no better, and ends early."""


@pytest.fixture(scope="module")
def parts(data: LabelledSlices) -> tuple[LabelledSlices, LabelledSlices]:
    return data.only({"anna", "bert"}).resized(32), data.only({"cleo"}).resized(32)


@pytest.fixture(scope="module")
def ended(parts: tuple[LabelledSlices, LabelledSlices]) -> tuple[list[TrainingProgress], nn.Module]:
    """What an uninterrupted run of that recipe tells, and its network."""
    torch.set_num_threads(1)
    return run(PLATEAU, *parts)


@pytest.mark.slow
@pytest.mark.xdist_group("plateau")  # what they share is trained once then
def test_dropout_a_plateau_and_an_early_end_survive_an_interruption(
    parts: tuple[LabelledSlices, LabelledSlices],
    ended: tuple[list[TrainingProgress], nn.Module],
    tmp_path: Path,
) -> None:
    told, network = ended
    assert told[-1].step < PLATEAU.length(10) == 90
    assert [p.best for p in told if p.validation][-3:] == [False] * 3
    at = [p.step for p in told if p.validation][-4]  # the rate has fallen, the end is counted down
    interrupt(PLATEAU, *parts, at, tmp_path / "a.checkpoint")
    again, resumed = run(PLATEAU, *parts, checkpoint=tmp_path / "a.checkpoint")
    after = [(p.step, p.validation, p.best) for p in told if p.step > at]
    assert [(p.step, p.validation, p.best) for p in again] == after
    assert same(network, resumed)


KILLED = """
import sys
from pathlib import Path
import numpy as np, torch
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.train import train
from napari_covseg.learn.slices import LabelledSlices
torch.set_num_threads(1)
folder = Path(sys.argv[1])
with np.load(folder / "data.npz") as saved:
    parts = [LabelledSlices(*(saved[part + key] for key in "imp")) for part in "tv"]
for told in train(Recipe(**eval(sys.argv[2])), *parts, checkpoint=folder / "a.checkpoint"):
    print(getattr(told, "step", "done"), flush=True)
"""


@pytest.mark.slow
@pytest.mark.xdist_group("plateau")
def test_a_killed_run_ends_as_if_it_had_not_been(
    parts: tuple[LabelledSlices, LabelledSlices],
    ended: tuple[list[TrainingProgress], nn.Module],
    tmp_path: Path,
) -> None:
    arrays = {
        name + key: getattr(part, field)
        for name, part in zip("tv", parts, strict=True)
        for key, field in zip("imp", ("images", "masks", "patients"), strict=True)
    }
    np.savez(tmp_path / "data.npz", **arrays)
    command = [sys.executable, "-c", KILLED, str(tmp_path), repr(dataclasses.asdict(PLATEAU))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        steps = [child.stdout.readline().strip() for _ in range(3)]
        child.kill()  # SIGKILL: nothing in it can tidy up
        assert "done" not in child.stdout.read()
    assert steps == ["3", "6", "9"]
    _, resumed = run(PLATEAU, *parts, checkpoint=tmp_path / "a.checkpoint")
    assert same(ended[1], resumed)


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_goes_on_from_there(
    recipe: Recipe, data: LabelledSlices, tmp_path: Path
) -> None:
    whole, network = run(recipe, data)
    steps: list[int] = []
    path = tmp_path / "a.checkpoint"
    ended = list(train(recipe, data, checkpoint=path, stop=lambda: steps.append(1) or len(steps) == 5))
    assert not any(isinstance(told, TrainedNetwork) for told in ended)
    assert json.loads((tmp_path / "a.checkpoint.progress").read_text())["step"] == 5
    (early,) = train(recipe, data, checkpoint=path, as_it_is=True)
    assert isinstance(early, TrainedNetwork) and early.steps == 5
    assert not same(early.network, network)
    told, again = run(recipe, data, checkpoint=path)
    assert told[-1].step == whole[-1].step
    assert same(network, again)
    assert not (tmp_path / "a.checkpoint.progress").exists()


def test_a_run_that_is_done_gives_its_network_at_once(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path
) -> None:
    _, network = run(recipe, data, checkpoint=tmp_path / "a.checkpoint")
    told, again = run(recipe, data, checkpoint=tmp_path / "a.checkpoint")
    assert told == []
    assert same(network, again)


def test_the_seed_decides(data: LabelledSlices, recipe: Recipe) -> None:
    short = dataclasses.replace(recipe, steps=4)
    _, network = run(short, data)
    assert same(network, run(short, data)[1])
    assert not same(network, run(dataclasses.replace(short, seed=1), data)[1])


def test_the_best_weights_are_kept(
    data: LabelledSlices, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.7, 0.7])
    weights: list[list[Tensor]] = []

    def scored(network: nn.Module, *rest: object) -> tuple[dict[str, float], float]:
        weights.append([tensor.clone() for tensor in network.state_dict().values()])
        return dict.fromkeys(("lungs", "lesion"), next(scores)), 0.0

    monkeypatch.setattr(train_module, "validate", scored)
    told, network = run(recipe, data, data)
    assert [p.best for p in told if p.validation] == [True, True, False]
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), weights[1], strict=True))


def test_crops_grow_with_the_stages(
    data: LabelledSlices, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def recording(images: Tensor, masks: Tensor, size: int, random: object) -> tuple[Tensor, Tensor]:
        sizes.append(size)
        return images, masks

    monkeypatch.setattr(train_module, "augmentation", lambda name, size: recording)
    run(dataclasses.replace(recipe, steps=10, stages=((0.4, 32), (0.8, 48), (1.0, 64))), data)
    assert sizes == [32] * 4 + [48] * 4 + [64] * 2


# Checkpoints


@pytest.mark.parametrize(
    "change", [{"steps": 17}, {"seed": 1}, {"settings": {"features": [4], "bottleneck": 8}}]
)
def test_a_checkpoint_of_another_recipe(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "a.checkpoint"
    interrupt(recipe, data, None, 6, path)
    other = dataclasses.replace(recipe, **change)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"a\.checkpoint was written with another recipe or other slices"):
        run(other, data, checkpoint=path)
    assert path.is_file()  # nothing is deleted that somebody may still want


def test_a_checkpoint_of_a_recipe_in_other_words(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path
) -> None:
    interrupt(recipe, data, None, 6, tmp_path / "a.checkpoint")
    reworded = dataclasses.replace(recipe, title="Another U-Net", notes="Better said.")
    assert run(reworded, data, checkpoint=tmp_path / "a.checkpoint")[0][0].step == 10


@pytest.mark.slow
def test_a_checkpoint_that_has_seen_other_patients(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path
) -> None:
    """Else the card of a fold's model would deny that it has seen its test patients."""
    path = tmp_path / "a.checkpoint"
    run(recipe, data.only({"anna", "bert"}), data.only({"cleo"}), checkpoint=path)
    for training, validation in [({"anna", "cleo"}, {"bert"}), ({"anna", "bert"}, {"anna"})]:
        with pytest.raises(ModelError, match="another recipe or other slices"):
            run(recipe, data.only(training), data.only(validation), checkpoint=path)
    with pytest.raises(ModelError, match="another recipe or other slices"):
        run(recipe, data.only({"anna", "bert"}), checkpoint=path)


def test_a_damaged_checkpoint(data: LabelledSlices, recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "a.checkpoint"
    interrupt(recipe, data, None, 6, path)
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"\0" * 500, b"\x80\x02K\x01."):
        path.write_bytes(damaged)
        with pytest.raises(
            ModelError, match=r"a\.checkpoint cannot be read .*: delete it to start over"
        ) as error:
            run(recipe, data, checkpoint=path)
        assert "\n" not in str(error.value)


def test_a_checkpoint_runs_no_code(data: LabelledSlices, recipe: Recipe, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"recipe": Evil()}, tmp_path / "a.checkpoint")
    with pytest.raises(ModelError, match="cannot be read") as error:
        run(recipe, data, checkpoint=tmp_path / "a.checkpoint")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_cannot_be_written(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.checkpoint"
    interrupt(recipe, data, None, 6, path)
    before = path.read_bytes()

    def full(saved: object, part: Path) -> None:
        part.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:664]\nfile write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ModelError, match=r"a\.checkpoint cannot be written .*: make room") as error:
        run(recipe, data, checkpoint=path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


# Parts of a step


@pytest.mark.parametrize(
    ("balance", "shares"), [(1.0, [3 / 12, 7 / 12, 2 / 12]), (0.0, [1 / 3, 1 / 3, 1 / 3])]
)
def test_how_often_a_patient_is_drawn(
    data: LabelledSlices, recipe: Recipe, balance: float, shares: list[float]
) -> None:
    weights = sampling_weights(dataclasses.replace(recipe, balance=balance), data)
    assert weights.sum() == pytest.approx(1)
    for name, share in zip(["anna", "bert", "cleo"], shares, strict=True):
        of_patient = weights[data.patients == name]
        assert of_patient.sum() == pytest.approx(share)
        assert np.ptp(of_patient) == 0


def test_slices_without_lungs_have_their_own_share(data: LabelledSlices, recipe: Recipe) -> None:
    with_neck = dataclasses.replace(data, negatives=frozenset({"bert", "cleo"}))
    weights = sampling_weights(dataclasses.replace(recipe, negatives=0.2), with_neck)
    assert weights[data.patients != "anna"].sum() == pytest.approx(0.2)
    assert weights[data.patients == "anna"].sum() == pytest.approx(0.8)
    alone = sampling_weights(recipe, dataclasses.replace(data, negatives=frozenset({"anna", "bert", "cleo"})))
    assert alone.sum() == pytest.approx(1)


def test_a_source_may_be_drawn_more_often(data: LabelledSlices, recipe: Recipe) -> None:
    weights = sampling_weights(
        dataclasses.replace(recipe, balance=0.0), dataclasses.replace(data, weights={"cleo": 3.0})
    )
    drawn = [weights[data.patients == name].sum() for name in ("anna", "bert", "cleo")]
    assert drawn == pytest.approx([0.2, 0.2, 0.6])


@pytest.mark.parametrize(("row", "reach", "rows"), [(5, 0, [5]), (5, 1, [4, 5, 6]), (3, 3, [3, 4, 5, 6])])
def test_a_slab_is_the_mean_of_one_patients_neighbours(
    data: LabelledSlices, row: int, reach: int, rows: list[int]
) -> None:
    image, mask = slab(data, row, reach)
    np.testing.assert_allclose(image, data.images[rows].mean(0), atol=0.5)
    np.testing.assert_array_equal(mask, data.masks[rows].mean(0) > 0.5)
    assert image.dtype == np.uint8


@pytest.mark.parametrize(("share", "slabs"), [(0.0, 0), (1.0, 6)])
def test_how_often_slices_become_slabs(
    data: LabelledSlices, recipe: Recipe, share: float, slabs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaches: list[int] = []

    def watched(training: LabelledSlices, row: int, reach: int) -> Any:
        reaches.append(reach)
        return slab(training, row, reach)

    monkeypatch.setattr(sampling_module, "slab", watched)
    run(dataclasses.replace(recipe, slab=share, steps=3), data)
    assert np.count_nonzero(reaches) == slabs
    assert set(reaches) <= {0, 1, 2, 3}


def test_scores_are_pooled_over_a_patient() -> None:
    class Bright(nn.Module):
        def forward(self, slices: Tensor) -> dict[str, Tensor]:
            return {"lungs": slices - 0.5, "lesion": torch.full_like(slices, -1.0)}

    images, masks = np.zeros((3, 4, 4), np.uint8), np.zeros((3, 2, 4, 4), bool)
    images[0], masks[0, 0] = 255, True  # anna's first: all found
    images[1, 0], masks[1, 0, 1] = 255, True  # her second: four pixels found, four others true
    images[2], masks[2, 0, 0] = 255, True  # bert: 16 found, 4 true
    slices = LabelledSlices(images, masks, np.array(["anna", "anna", "bert"]))
    scores = score(probabilities(Bright(), slices.images, slices.outputs, batch=2), slices)
    assert scores["lungs"] == pytest.approx((2 * 16 / (20 + 20) + 2 * 4 / (16 + 4)) / 2)
    assert scores["lesion"] == 1  # none there, none found


def test_network_input(data: LabelledSlices) -> None:
    images = as_input(data.images[:2])
    assert images.shape == (2, 1, 64, 64)
    assert float(images.max()) == pytest.approx(data.images[:2].max() / 255)


def test_what_a_run_says_to_whoever_looks_from_outside(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(step=3, steps=10, seconds=1.5)
    before = time.time()
    _write_progress(tmp_path / "run", run, 0.25)
    told = json.loads((tmp_path / "run.progress").read_text("utf-8"))
    assert before <= told.pop("time") <= time.time()
    assert told == {"step": 3, "steps": 10, "seconds": 1.5, "loss": 0.25, "pid": os.getpid()}


def test_a_checkpoint_without_its_recipe_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in ({}, {"recipe": None}):
        monkeypatch.setattr(train_module, "_read", lambda path, content=content: content)
        with pytest.raises(ModelError, match=r"run\.checkpoint"):
            train_module.steps_of(tmp_path / "run.checkpoint")
