"""A run: what is recorded as done is whole, what is missing is never taken for zeros."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_covseg.cases import prediction as prediction_module
from napari_covseg.cases.case import Case
from napari_covseg.cases.prediction import Prediction
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError

SHAPE = (32, 24)


@pytest.fixture
def case(workspace: Workspace, case_id: str) -> Case:
    return workspace.case(case_id)


@pytest.fixture
def run(case: Case) -> Prediction:
    return case.begin_prediction("unet", {"batch": 4}, ["lungs", "lesion"], 7, probabilities=True)


def slices(seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, 4, shape, np.uint8) for shape in (SHAPE, SHAPE, (2, *SHAPE)))


def folder(case: Case, run: Prediction) -> Path:
    return Path(case.path, "predictions", run.id)


def test_what_is_written_is_read_elsewhere(case: Case, run: Prediction) -> None:
    written = {z: slices(z) for z in (4, 1)}
    for z, (lungs, lesions, probabilities) in written.items():
        run.write_slice(z, lungs, lesions, probabilities)
    other = Workspace.open(Path(case.path).parents[1]).case(case.id).prediction(run.id)
    assert other.done.tolist() == [False, True, False, False, True, False]
    for z, (lungs, lesions, probabilities) in written.items():
        assert np.array_equal(other.read_slice(z), (lungs, lesions))
        assert np.array_equal(other.read_probabilities(z), probabilities)


def test_how_unsure_the_model_was_is_read_back(case: Case, run: Prediction) -> None:
    run.write_slice(1, *slices(1), entropy=12.5)
    run.write_slice(2, *slices(2))
    assert run.read_entropy(1) == case.prediction(run.id).read_entropy(1) == 12.5
    assert np.isnan([run.read_entropy(2), run.read_entropy(3)]).all()
    chunk = next(folder(case, run).glob("entropy/c.1.*"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(CaseError, match="damaged"):
        run.read_entropy(1)


def test_how_unsure_it_was_of_each_voxel_is_kept_if_asked(case: Case, run: Prediction) -> None:
    assert run.read_uncertainty(0) is None
    lungs, lesions, _ = slices(1)
    with pytest.raises(ValueError, match="uncertainty"):
        run.write_slice(1, *slices(1), uncertainty=lungs)
    own = case.begin_prediction("model", {}, ["lungs"], 0, probabilities=False, uncertainty=True)
    with pytest.raises(ValueError, match="uncertainty"):
        own.write_slice(1, lungs, lesions)
    own.write_slice(1, lungs, lesions, uncertainty=lungs + 5)
    np.testing.assert_array_equal(case.prediction(own.id).read_uncertainty(1), lungs + 5)
    with pytest.raises(CaseError, match="missing"):
        own.read_uncertainty(2)


def test_its_description(case: Case, run: Prediction) -> None:
    assert not case.prediction(run.id).info.finished
    run.finish()
    assert run.info.finished
    info = case.predictions()[0]
    assert (info.model_id, info.settings, info.revision) == ("unet", {"batch": 4}, 7)
    assert (info.class_names, info.probabilities, info.finished) == (("lungs", "lesion"), True, True)
    assert case.array("0").metadata.dimension_names == ("z", "y", "x")
    assert run._probabilities.metadata.dimension_names == ("c", "z", "y", "x")
    assert run._probabilities.chunks == (2, 1, *SHAPE)


def test_runs_are_listed_in_the_order_they_began(case: Case) -> None:
    ids = [case.begin_prediction("m", {}, [], 0, probabilities=False).id for _ in range(5)]
    assert [info.id for info in case.predictions()] == ids == sorted(set(ids))


def test_a_run_without_its_last_step_is_not_listed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stop(*args: Any) -> None:
        calls.append(args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prediction_module.zarr.Group, "update_attributes", stop)
        with pytest.raises(KeyboardInterrupt):
            case.begin_prediction("m", {}, [], 0, probabilities=False)
    assert calls
    assert case.predictions() == []
    case.begin_prediction("m", {}, [], 0, probabilities=False)
    assert len(case.predictions()) == 1


def test_a_slice_is_done_only_with_its_record(run: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = prediction_module.write_slice, [3]

    def dies_before_the_record(*args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(prediction_module, "write_slice", dies_before_the_record)
    with pytest.raises(KeyboardInterrupt):
        run.write_slice(2, *slices(0))
    assert not run.done.any()
    with pytest.raises(CaseError, match="not predicted yet"):
        run.read_slice(2)


@pytest.mark.parametrize("written", range(3))
def test_a_rewrite_leaves_the_old_or_the_new_slice(
    run: Prediction, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    (old, lesions, probabilities), (new, *_) = slices(0), slices(1)
    run.write_slice(2, old, lesions, probabilities)
    real, left = prediction_module.write_slice, [written]

    def dies_after(*args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(prediction_module, "write_slice", dies_after)
        if written < 2:
            with pytest.raises(KeyboardInterrupt):
                run.write_final("lungs", 2, new)
        else:
            run.write_final("lungs", 2, new)
    assert np.array_equal(run.read_slice(2), (new if written == 2 else old, lesions))
    run.write_final("lungs", 2, lesions)
    assert np.array_equal(run.read_slice(2)[0], lesions)


def test_writing_a_slice_again_replaces_it(run: Prediction) -> None:
    run.write_slice(2, *slices(0))
    lungs, lesions, probabilities = slices(1)
    run.write_slice(2, lungs, lesions, probabilities)
    assert np.array_equal(run.read_slice(2), (lungs, lesions))
    assert np.array_equal(run.read_probabilities(2), probabilities)


def test_a_last_word_needs_a_first(run: Prediction) -> None:
    with pytest.raises(CaseError, match="not predicted yet"):
        run.write_final("lungs", 2, slices(0)[0])


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "another slice"])
@pytest.mark.parametrize("group", ["lungs", "lesions"])
def test_a_damaged_slice_is_not_taken_for_data(case: Case, run: Prediction, group: str, damage: str) -> None:
    run.write_slice(2, *slices(0))
    run.write_slice(3, *slices(1))
    chunk = folder(case, run) / group / "c.2.0.0"
    data = bytearray(chunk.read_bytes())
    if damage == "missing":
        chunk.unlink()
    elif damage == "cut":
        chunk.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 4
        chunk.write_bytes(data)
    else:
        shutil.copy(folder(case, run) / group / "c.3.0.0", chunk)
    with pytest.raises(CaseError, match=r"Slice 3 of .*damaged"):
        run.read_slice(2)
    assert run.read_slice(3)[0].any()


def test_probabilities_that_are_missing_are_not_zeros(case: Case, run: Prediction) -> None:
    run.write_slice(2, *slices(0))
    (folder(case, run) / "probabilities/c.0.2.0.0").unlink()
    with pytest.raises(CaseError, match="missing"):
        run.read_probabilities(2)


def test_probabilities_are_given_if_and_only_if_kept(case: Case, run: Prediction) -> None:
    lungs, lesions, probabilities = slices(0)
    with pytest.raises(ValueError, match="probabilities"):
        run.write_slice(0, lungs, lesions)
    without = case.begin_prediction("m", {}, [], 0, probabilities=False)
    with pytest.raises(ValueError, match="probabilities"):
        without.write_slice(0, lungs, lesions, probabilities)
    without.write_slice(0, lungs, lesions)
    assert without.read_probabilities(0) is None


def test_a_run_that_does_not_exist(case: Case) -> None:
    with pytest.raises(CaseError, match='"nowhere"'):
        case.prediction("nowhere")


def test_a_rewrite_while_it_is_read(case: Case, run: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    (old, lesions, probabilities), (new, *_) = slices(0), slices(1)
    run.write_slice(2, old, lesions, probabilities)
    real, rewritten = prediction_module.read_slice, []

    def rewrite_first(array: Any, z: int) -> Any:
        if array.path.endswith("lungs") and not rewritten:
            rewritten.append(z)
            case.prediction(run.id).write_final("lungs", z, new)
        return real(array, z)

    monkeypatch.setattr(prediction_module, "read_slice", rewrite_first)
    assert np.array_equal(run.read_slice(2)[0], new)
    assert rewritten == [2]
