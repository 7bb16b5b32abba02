from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reviewing import correct
from tiny_model import tiny_scan

from napari_covseg.cases.case import Case, Review
from napari_covseg.cases.prediction import Prediction
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError, JobError, ModelError
from napari_covseg.jobs import predict_case
from napari_covseg.jobs.events import Finished, Notice, PredictionStarted, Progress, SlicesDone, VolumeDone
from napari_covseg.jobs.predict_case import AHEAD
from napari_covseg.jobs.requests import Predict, WarmUp
from napari_covseg.jobs.run import run
from napari_covseg.jobs.steps import Control, JobCancelled
from napari_covseg.labels import GROUPS
from napari_covseg.models.file import load_network, save_model
from napari_covseg.predict.options import PredictOptions


def events_but_progress(events: list) -> list:
    return [event for event in events if not isinstance(event, Progress)]


def slices(events: list) -> list[int]:
    return [z for event in events if isinstance(event, SlicesDone) for z in event.slices]


def run_of(case: Case, events: list) -> Prediction:
    return case.prediction(
        next(event.prediction_id for event in events if isinstance(event, PredictionStarted))
    )


def test_a_case_is_labelled_from_the_focus_outwards(case: Case, predict: Predict) -> None:
    events = list(run(predict))
    told = events_but_progress(events)
    assert isinstance(told[0], PredictionStarted)
    assert told[-2:] == [VolumeDone(told[0].prediction_id), Finished()]
    order = slices(events)
    assert order[0] == 3 and sorted(order) == list(range(7))
    assert [abs(z - 3) for z in order] == sorted(abs(z - 3) for z in order)
    kept = run_of(case, events)
    assert kept.done.all() and kept.info.finished
    assert set(np.unique(kept.read_slice(3)[0])) <= {0, 1, 2, 3}
    assert kept.info.model_id == "tiny" and kept.info.revision == 0
    assert kept.info.class_names == ("lungs", "lesion")


def test_the_last_pass_keeps_few_slices_in_memory() -> None:
    made: list[weakref.ref[np.ndarray]] = []
    most, written = 0, []

    def passing() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        nonlocal most
        for z in range(100):
            change = z, np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
            made.extend(map(weakref.ref, change[1:]))
            most = max(most, sum(array() is not None for array in made))
            yield change

    class Written:
        def write_final(self, group: str, z: int, values: np.ndarray) -> None:
            written.append((z, group))

    for _ in predict_case._rewrite(Written(), passing(), 100):
        pass
    assert written == [(z, group) for z in range(100) for group in GROUPS]
    assert most <= 2 * (3 * AHEAD + 2)  # gathered, waiting, just written


def test_progress_counts_slices(predict: Predict) -> None:
    progress = [event for event in run(predict) if isinstance(event, Progress) and event.total]
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert progress[-1].done == progress[-1].total == 7
    assert progress[-1].unit == "slices"
    assert any(p.per_second and p.seconds_left is not None for p in progress)


def test_slices_are_on_disk_when_they_are_told(case: Case, predict: Predict) -> None:
    prediction_id = ""
    for event in run(predict):
        if isinstance(event, PredictionStarted):
            prediction_id = event.prediction_id
        if isinstance(event, SlicesDone):
            done = Workspace.open(predict.workspace).case(case.id).prediction(prediction_id).done
            assert done[list(event.slices)].all()


def test_probabilities_are_kept_if_asked(case: Case, predict: Predict) -> None:
    kept = run_of(case, list(run(replace(predict, probabilities=True))))
    values = kept.read_probabilities(0)
    assert values is not None and values.shape == (2, *case.shape[1:]) and values.any()


def test_corrected_slices_guide_those_around_them(
    workspace: Workspace, predict: Predict, tmp_path: Path
) -> None:
    scan = tiny_scan()
    scan.voxels[:] = -850
    scan.voxels[:, 8:26, 3:19] = -300  # raised, as a finding has to be
    case = workspace.case(workspace.add_case(scan))
    network, card = load_network(predict.model)
    for parameter in network.head.parameters():
        torch.nn.init.zeros_(parameter)
    network.head.bias.data[:] = torch.tensor([50.0, -1.0])  # lung everywhere, lesions nowhere
    save_model(tmp_path / "m.safetensors", network, card)

    def lesions(guided: bool, threshold: float | None = None) -> np.ndarray:
        model = str(tmp_path / "m.safetensors")
        options = PredictOptions(threshold, anyway=True)  # it looks like no chest
        job = replace(predict, case=case.id, model=model, guided=guided, options=options)
        kept = run_of(case, list(run(job)))
        assert kept.read_probabilities(0) is None and kept.info.settings["guided"] == guided
        return np.stack([kept.read_slice(z)[1] for z in range(7)])

    correct(workspace, case.id, range(7), Review.PREDICTED)  # alike from slice to slice, as in thin ones
    correct(workspace, case.id, (3,))
    assert not lesions(guided=False).any()
    guided = lesions(guided=True)
    drawn = np.s_[15:19, 9:13]  # the middle of what was drawn as ground-glass, "lesion" to this model
    assert (guided[2][drawn] == 1).all() and (guided[4][drawn] == 1).all()
    assert not guided[3].any() and not guided[2][20:].any()
    assert lesions(guided=True, threshold=0.01)[2].sum() > guided[2].sum()


def test_a_threshold_replaces_the_cards(case: Case, predict: Predict) -> None:
    def painted(threshold: float | None) -> int:
        kept = run_of(case, list(run(replace(predict, options=PredictOptions(threshold)))))
        return sum(int((kept.read_slice(z)[1] > 0).sum()) for z in range(7))

    assert painted(1.0) == 0
    assert painted(None) > 0


def another(predict: Predict, folder: Path, bias: float, lungs: float = 50.0, **changes: object) -> str:
    """Return a model that is as sure of lesions everywhere as `bias` says, in logits; and of lungs."""
    network, card = load_network(predict.model)
    for parameter in network.head.parameters():
        torch.nn.init.zeros_(parameter)
    network.head.bias.data[:] = torch.tensor([lungs, bias])
    path = folder / f"{bias} {lungs} {len(changes)}.safetensors"
    save_model(path, network, replace(card, id=f"bias {bias}", **changes))
    return str(path)


def test_several_models_and_mirror_images_are_one_prediction(
    case: Case, predict: Predict, tmp_path: Path
) -> None:
    models = [another(predict, tmp_path, bias) for bias in (1.0, -1.0)]
    options = PredictOptions(0.4, "flip", (models[1],), uncertainty=True)
    kept = run_of(case, list(run(replace(predict, model=models[0], options=options, probabilities=True))))
    settings = kept.info.settings
    assert (settings["threshold"], settings["tta"], settings["also"]) == (0.4, "flip", ["bias -1.0"])
    assert settings["uncertainty"] == "spread" and kept.info.model_id == "bias 1.0"
    for z in range(7):
        said, unsure = kept.read_probabilities(z), kept.read_uncertainty(z)
        assert said is not None and unsure is not None
        assert np.unique(said[1]).tolist() == [128]  # half of sigmoid(1) + sigmoid(-1)
        assert np.unique(unsure).tolist() == [118]  # 2 * 0.231 * 255
    plain = run_of(case, list(run(predict)))
    assert plain.read_uncertainty(0) is None and plain.info.settings["uncertainty"] == ""


def test_small_findings_go_in_the_last_pass(case: Case, predict: Predict, tmp_path: Path) -> None:
    sure = another(predict, tmp_path, 9.0)

    def voxels(**options: float) -> int:
        kept = run_of(case, list(run(replace(predict, model=sure, options=PredictOptions(**options)))))
        assert kept.info.finished
        return sum(int(np.count_nonzero(kept.read_slice(z)[1])) for z in range(7))

    all_of_it = voxels()
    assert all_of_it > 0
    ml = all_of_it * 5 * 1.5 * 1.5 / 1000  # at most, as one piece
    assert voxels(min_ml=2 * ml) == 0
    assert voxels(min_pixels=10_000) == 0
    assert voxels(min_ml=0.001, min_pixels=2) == all_of_it


def test_ml_need_the_size_of_a_voxel(workspace: Workspace, predict: Predict) -> None:
    scan = replace(tiny_scan(2), spacing=None, intensity="grey", name="pictures")
    job = replace(predict, case=workspace.add_case(scan), options=PredictOptions(min_ml=1.0))
    with pytest.raises(JobError, match="not known in pictures: give the smallest finding in pixels"):
        list(run(job))
    list(run(replace(job, options=PredictOptions(min_pixels=4, anyway=True))))


def test_a_model_that_crops_takes_the_lungs_of_another(case: Case, predict: Predict, tmp_path: Path) -> None:
    _, card = load_network(predict.model)
    cropped = another(predict, tmp_path, 9.0, preparation={**card.preparation, "crop": "lungs"})
    finder = another(predict, tmp_path, -9.0)
    job = replace(predict, model=cropped, options=PredictOptions(lungs_from=finder))
    kept = run_of(case, list(run(job)))
    assert kept.info.settings["lungs_from"] == "bias -9.0"
    assert kept.read_slice(3)[1].any()
    nothing = replace(job, options=PredictOptions(lungs_from=another(predict, tmp_path, -9.0, lungs=-9.0)))
    unseen = run_of(case, list(run(nothing)))
    assert not any(unseen.read_slice(z)[index].any() for z in range(7) for index in (0, 1))


@pytest.mark.parametrize("how", ["close", "throw"])
def test_a_cancelled_run_keeps_its_slices(workspace: Workspace, model: str, how: str) -> None:
    case = workspace.case(workspace.add_case(tiny_scan(40)))
    steps = run(Predict(workspace.path, case.id, model, 3, device="cpu", batch=1))
    events = []
    for event in steps:
        events.append(event)
        if len(slices(events)) >= 3:
            break
    if how == "close":
        steps.close()
    else:
        with pytest.raises(JobCancelled):
            events.append(steps.throw(JobCancelled()))
            while True:
                events.append(next(steps))
    kept = run_of(case, events)
    assert not kept.info.finished
    done = set(np.flatnonzero(kept.done))
    assert set(slices(events)) <= done < set(range(40))
    if how == "throw":
        assert set(slices(events)) == done
    for z in done:
        kept.read_slice(int(z))  # checks the checksums


def test_the_focus_is_followed(workspace: Workspace, model: str) -> None:
    case_id = workspace.add_case(tiny_scan(40))
    control = Control()
    order = []
    for event in run(Predict(workspace.path, case_id, model, 0, device="cpu", batch=1), control):
        if isinstance(event, SlicesDone):
            if not order:
                control.focus(39)
            order += event.slices
    assert order.index(39) <= 4  # what was on its way by then came first
    assert sorted(order) == list(range(40))


def test_memory_that_is_full_halves_the_batch(case: Case, predict: Predict, monkeypatch) -> None:
    import torch

    from napari_covseg.networks.unet import UNet

    forward = UNet.forward

    def small(self: UNet, x: torch.Tensor) -> object:
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x)

    monkeypatch.setattr(UNet, "forward", small)
    events = list(run(replace(predict, batch=4)))
    assert [e for e in events if isinstance(e, Notice)]
    assert run_of(case, events).done.all() and events[-1] == Finished()


def test_one_slice_that_does_not_fit_is_an_error(predict: Predict, monkeypatch) -> None:
    from napari_covseg.jobs.memory import loaded_model
    from napari_covseg.models.catalogue import find
    from napari_covseg.networks.unet import UNet

    loaded_model(find(predict.model).path, "cpu")

    def none(self: UNet, x: object) -> object:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: out of memory")

    monkeypatch.setattr(UNet, "forward", none)
    with pytest.raises(JobError, match="memory of cpu"):
        list(run(predict))


def test_what_writing_raises_ends_the_job(predict: Predict, monkeypatch) -> None:
    def full(self: Prediction, z: int, *arrays: object) -> None:
        raise CaseError("The disk is full.")

    monkeypatch.setattr(Prediction, "write_slice", full)
    with pytest.raises(CaseError, match="disk is full"):
        list(run(predict))
    assert "covseg-writer" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"case": "nobody"}, CaseError),
        ({"workspace": "/nowhere"}, CaseError),
        ({"model": "nothing"}, ModelError),
        ({"device": "abacus"}, ModelError),
    ],
)
def test_users_errors(predict: Predict, change: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        list(run(replace(predict, **change)))


def test_warming_up_loads_the_model(model: str) -> None:
    from napari_covseg.jobs import memory

    memory._loaded.clear()
    assert list(run(WarmUp(model, "cpu")))[-1] == Finished()
    assert [key[2] for key in memory._loaded] == ["cpu"]
    assert list(run(WarmUp(None)))[-1] == Finished()
