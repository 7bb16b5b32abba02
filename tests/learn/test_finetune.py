from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_covseg.errors import ModelError
from napari_covseg.learn import finetune as finetune_module
from napari_covseg.learn.finetune import (
    FinetuneProgress,
    FinetuneResult,
    FinetuneSettings,
    Finetuning,
    finetune,
)
from napari_covseg.learn.score import model_probabilities, score_model
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.models.file import Model, load_model

FEW = FinetuneSettings(steps=12, batch=3, crop=48, learning_rate=5e-3, tolerance=0, measure_every=4)


def slices(count: int, seed: int) -> LabelledSlices:
    """Bright discs are lungs, and a brighter spot is a lesion."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    targets = np.zeros((count, 2, 64, 64), bool)
    for target in targets:
        centre = rng.uniform(24, 40, 2)
        target[0] = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 20**2
        target[1] = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 7**2
    images = 30 + 90 * targets[:, 0] + 110 * targets[:, 1] + rng.integers(0, 20, (count, 64, 64))
    return LabelledSlices(images.astype(np.uint8), targets.astype(np.uint8), np.full(count, "case"))


@pytest.fixture
def parent(untrained_file: Path) -> Model:
    return load_model(untrained_file, "cpu")


def end(events: list) -> FinetuneResult:
    assert isinstance(events[-1], FinetuneResult)
    return events[-1]


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_few_slices_make_the_model_better_on_others(parent: Model) -> None:
    # from weights that know nothing, half the way leads nowhere
    settings = replace(FEW, steps=80, measure_every=20, learning_rate=1e-2, interpolation=1.0)
    result = end(list(finetune(parent, slices(4, 0), slices(2, 1), None, settings)))
    before, after = score_model(parent, slices(5, 2)), score_model(result.model, slices(5, 2))
    assert after["lungs"] > before["lungs"] + 0.2
    assert len(result.losses) == 80 and result.losses[-10:].mean() < result.losses[:10].mean()


def test_every_step_is_told_and_the_held_out_slices_are_measured(parent: Model) -> None:
    told = list(finetune(parent, slices(3, 0), slices(2, 1), None, FEW))
    progress = [event for event in told if isinstance(event, FinetuneProgress)]
    assert [event.step for event in progress] == list(range(13))
    assert progress[0].seconds == 0 and all(event.seconds > 0 for event in progress[1:])
    assert math.isnan(progress[0].loss) and all(event.loss > 0 for event in progress[1:])
    assert [event.step for event in progress if event.held_out] == [0, 4, 8, 12]
    result = end(told)
    assert result.measured.tolist() == [0, 4, 8, 12] and result.held_out.shape == (4, 2)
    assert not any(weight.requires_grad for weight in result.model.network.parameters())
    means = result.held_out.mean(1)
    assert result.step == result.measured[np.flatnonzero(means == means.max())[-1]]
    assert result.step == [event.step for event in progress if event.best][-1]
    assert score_model(result.model, slices(2, 1)) == pytest.approx(
        dict(zip(parent.card.outputs, result.held_out[means.argmax()], strict=True))
    )


def test_weights_that_only_get_worse_leave_the_parent(parent: Model) -> None:
    held_out = slices(2, 1)
    said = model_probabilities(parent, held_out.images) >= 128
    held_out = replace(held_out, masks=said)  # nobody agrees with the parent as well as itself
    settings = replace(FEW, learning_rate=0.1, measure_every=12)
    result = end(list(finetune(parent, slices(3, 0), held_out, None, settings)))
    assert result.step == 0 and same(weights(result.model), weights(parent))


def test_a_little_worse_on_few_slices_is_no_reason_to_stop(
    parent: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.8, 0.77, 0.7])
    monkeypatch.setattr(
        "napari_covseg.learn.finetune.score_model",
        lambda *_: dict.fromkeys(("lungs", "lesion"), next(scores)),
    )
    run = Finetuning(parent, slices(3, 0), slices(2, 1), None, replace(FEW, tolerance=0.08))
    assert [told.step for told in run.steps() if told.best] == [0, 4, 8]
    assert run.result().step == 8


def test_without_held_out_slices_the_last_weights_are_kept(parent: Model) -> None:
    result = end(list(finetune(parent, slices(3, 0), None, None, FEW)))
    assert result.step == 12 and result.held_out.shape == (0, 2)
    assert not same(weights(result.model), weights(parent))


def test_what_is_kept_lies_between_the_parent_and_what_was_learned(parent: Model) -> None:
    ends = {
        share: weights(
            end(list(finetune(parent, slices(3, 0), None, None, replace(FEW, interpolation=share)))).model
        )
        for share in (0.0, 0.25, 1.0)
    }
    assert same(ends[0.0], weights(parent))
    for name, start in ends[0.0].items():
        torch.testing.assert_close(ends[0.25][name], start + 0.25 * (ends[1.0][name] - start))


@pytest.mark.parametrize("hardware", [False, True])
def test_half_precision_is_for_hardware_that_has_it(
    parent: Model, hardware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_module, "_has_bfloat16", lambda: hardware)
    run, images = Finetuning(parent, slices(3, 0), None, None, FEW), torch.rand(1, 1, 48, 48)
    exact = torch.cat(list(run._network(images).values()), 1)
    assert torch.equal(run._logits(images).float(), exact) != hardware


def test_outputs_that_nobody_has_judged_do_not_decide(parent: Model) -> None:
    held_out = slices(2, 1)
    held_out.masks[:, 0] = UNKNOWN
    run = Finetuning(parent, slices(3, 0), held_out, None, FEW)
    looks = [told.held_out for told in run.steps() if told.held_out is not None]
    assert all(list(look) == [parent.card.outputs[1]] for look in looks)
    assert np.isnan(run.result().held_out[:, 0]).all() and not np.isnan(run.result().held_out[:, 1]).any()


def test_the_parent_never_changes(parent: Model, untrained_file: Path) -> None:
    before, on_disk = weights(parent), untrained_file.read_bytes()
    list(finetune(parent, slices(3, 0), slices(2, 1), slices(2, 3), FEW))
    assert same(weights(parent), before) and untrained_file.read_bytes() == on_disk
    assert not any(parameter.grad is not None for parameter in parent.network.parameters())


def test_the_same_seed_gives_the_same_weights(parent: Model) -> None:
    one, two, other = (
        end(list(finetune(parent, slices(3, 0), None, slices(2, 3), replace(FEW, seed=seed))))
        for seed in (1, 1, 2)
    )
    assert same(weights(one.model), weights(two.model)) and np.array_equal(one.losses, two.losses)
    assert not same(weights(one.model), weights(other.model))


def test_an_interrupted_fine_tuning_gives_the_best_so_far(parent: Model) -> None:
    run = Finetuning(parent, slices(3, 0), slices(2, 1), None, FEW)
    steps = run.steps()
    for told in steps:
        if told.step == 9:
            break
    steps.close()
    result = run.result()
    assert len(result.losses) == 9 and result.measured.tolist() == [0, 4, 8, 9]
    assert result.step in (0, 4, 8, 9)
    alone = Finetuning(parent, slices(3, 0), None, None, FEW)
    assert alone.result().step == 0  # also before the first step
    assert same(weights(alone.result().model), weights(parent))


def test_time_ends_a_fine_tuning(parent: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("napari_covseg.learn.finetune.time.perf_counter", lambda: float(next(clock)))
    result = end(list(finetune(parent, slices(3, 0), None, None, replace(FEW, seconds=5.0))))
    assert len(result.losses) == 5


def test_where_time_ends_it_the_last_weights_are_measured(
    parent: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("napari_covseg.learn.finetune.time.perf_counter", lambda: float(next(clock)))
    settings = replace(FEW, seconds=5.0, measure_every=100, tolerance=9)
    told = list(finetune(parent, slices(3, 0), slices(2, 1), None, settings))
    looks = [event.step for event in told if isinstance(event, FinetuneProgress) and event.held_out]
    assert looks == [0, 5] and end(told).step == 5


def test_where_a_person_stops_it_the_last_weights_are_measured(parent: Model) -> None:
    run = Finetuning(parent, slices(3, 0), slices(2, 1), None, replace(FEW, measure_every=100, tolerance=9))
    for told in run.steps():
        if told.step == 7:
            break
    assert run.result().step == 7 and run.result().measured.tolist() == [0, 7]


@pytest.mark.slow
def test_memory_keeps_the_model_as_it_was(parent: Model) -> None:
    known = slices(4, 7)
    memory = replace(known, masks=model_probabilities(parent, known.images) / np.float32(255))

    def drift(memory: LabelledSlices | None) -> float:
        settings = replace(FEW, steps=40, memory_weight=5.0, memory_batch=4, warp=None, crop=64)
        result = end(list(finetune(parent, slices(3, 0), None, memory, settings)))
        said = model_probabilities(result.model, known.images).astype(int)
        return float(np.abs(said - model_probabilities(parent, known.images)).mean())

    assert drift(memory) < 0.6 * drift(None)


def test_what_does_not_count_is_not_learned(parent: Model) -> None:
    """Where nothing is known of an output, its weights stay as they are."""
    some = slices(3, 0)
    some.masks[:, 1] = UNKNOWN
    result = end(list(finetune(parent, some, None, None, replace(FEW, weight_decay=0.0))))
    before, after = weights(parent), weights(result.model)
    (head,) = (name for name, value in before.items() if value.shape[0] == 2 and value.ndim == 4)
    assert torch.equal(before[head][1], after[head][1])
    assert not torch.equal(before[head][0], after[head][0])


def test_frozen_layers_stay(parent: Model) -> None:
    result = end(
        list(finetune(parent, slices(3, 0), None, None, replace(FEW, freeze=("encoders", "bottom"))))
    )
    before, after = weights(parent), weights(result.model)
    for name in before:
        changed = not torch.equal(before[name], after[name])
        assert changed == (not name.startswith(("encoders", "bottom"))), name


def test_nothing_to_learn_from_is_an_error(parent: Model) -> None:
    with pytest.raises(ModelError, match="correct or accept"):
        list(finetune(parent, slices(3, 0).rows(np.arange(0))))


def test_a_crop_lies_around_what_is_labelled() -> None:
    target = np.zeros((2, 8, 24), bool)
    assert finetune_module._middle(target) == (3.5, 11.5)
    target[0, 2:6, 10:12], target[1, 4, 10:20] = True, True
    assert finetune_module._middle(target) == (3.5, 14.5)
