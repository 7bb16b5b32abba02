"""Models say what a case or a file shows: from the slice on screen outwards, kept, and with a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from listening import Listener
from recognisers import TRUST, write_recognisers
from skimage import data
from xrays import write_xray

from napari_covseg.cases.case import Case
from napari_covseg.cases.store import write_slice
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import JobError, ModelError
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import (
    Cancelled,
    Event,
    Finished,
    Notice,
    Progress,
    RecognitionStarted,
    ScanRecognised,
    SliceRecognised,
    Written,
)
from napari_covseg.jobs.requests import Recognise, RecogniseFile, WarmUp
from napari_covseg.jobs.run import run
from napari_covseg.jobs.steps import Control, JobCancelled
from napari_covseg.models import catalogue
from napari_covseg.scans import read_scan
from phantom import phantom


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, as_if_taught: Callable[[Any], None]) -> Path:
    return write_recognisers(tmp_path_factory.mktemp("models"), as_if_taught)


@pytest.fixture
def named(models: Path) -> Callable[..., tuple[str, ...]]:
    return lambda *names: tuple(str(models / f"tiny-{name}.safetensors") for name in names)


@pytest.fixture
def ct(workspace: Workspace) -> Case:
    """Nine slices of a chest, of which the first and the last have no lung."""
    scan = phantom(12, (9, 96, 96), (20.0, 3.8, 3.8)).scan
    scan.voxels[[0, 8]] = np.where(np.hypot(*(np.mgrid[:96, :96] - 48)) < 40, 40, -1000)
    return workspace.case(workspace.add_case(scan))


@pytest.fixture
def xray(workspace: Workspace, tmp_path: Path) -> Case:
    return workspace.case(workspace.add_case(read_scan(write_xray(tmp_path / "front.dcm", bits=14))))


def of(kind: type, events: Sequence[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_a_ct_is_recognised_and_its_manifestations_named_outwards(
    workspace: Workspace, ct: Case, named: Callable[..., tuple[str, ...]]
) -> None:
    request = Recognise(workspace.path, ct.id, named("ct", "manifestations"), 3, 5, "cpu")
    events = list(run(request))
    started, told = of(RecognitionStarted, events), of(SliceRecognised, events)
    assert [one.model_id for one in started] == ["tiny-ct", "tiny-manifestations"]
    assert [(one.model_id, one.z) for one in told[:4]] == [
        ("tiny-ct", 3), ("tiny-manifestations", 3), ("tiny-ct", 4), ("tiny-manifestations", 4),
    ]  # fmt: skip
    assert sorted(one.z for one in told if one.model_id == "tiny-ct") == list(range(9))
    assert {one.z for one in told if None in one.probabilities} == {0, 8}
    assert of(Progress, events)[-1].done == 9 and isinstance(events[-1], Finished)

    class_, findings = scans = of(ScanRecognised, events)
    assert (class_.shown, class_.caution, class_.slices) == (False, TRUST, 7)
    assert sum(class_.probabilities) == pytest.approx(1) and class_.shares == ()
    assert (findings.shown, len(findings.probabilities), len(findings.shares)) == (True, 3, 3)
    assert [one.id for one in ct.recognitions()] == [class_.recognition_id, findings.recognition_id]
    for event in scans:
        kept = ct.recognition(event.recognition_id)
        info, values = kept.info, kept.read_probabilities()
        assert info.finished and info.scan == event.probabilities and info.shares == event.shares
        assert (info.model_id, info.revision, info.heat_maps) == (event.model_id, 5, (96, 96))
        assert (
            info.settings["modality"] == "CT"
            and info.settings["caution"] == TRUST
            and info.settings["shown"] is event.shown
        )
        assert info.settings["thresholds"] == dict.fromkeys(event.outputs, 0.5)
        for one in (one for one in told if one.model_id == event.model_id):
            known = [np.nan if sure is None else sure for sure in one.probabilities]
            np.testing.assert_allclose(values[one.z], known, rtol=1e-6)
        heat = kept.read_heat(3)
        assert heat is not None and heat.any() and kept.read_heat(0) is None
    highest = np.sort(ct.recognition(class_.recognition_id).read_probabilities()[1:8, 0])[-5:]
    assert class_.probabilities[0] == pytest.approx(highest.mean(), rel=1e-5)


def test_slices_that_a_model_has_labelled_have_lung_where_it_found_it(
    workspace: Workspace, ct: Case, named: Callable[..., tuple[str, ...]]
) -> None:
    predicted = ct.begin_prediction("other", {}, ["lungs", "lesion"], 0, probabilities=False)
    predicted.finish()
    empty = np.zeros((96, 96), np.uint8)
    for z in range(9):
        write_slice(ct.labels("lungs"), z, empty + (z in (2, 5)))
    events = list(run(Recognise(workspace.path, ct.id, named("ct"), 0, device="cpu", heat_maps=False)))
    assert {one.z for one in of(SliceRecognised, events) if None not in one.probabilities} == {2, 5}
    (kept,) = ct.recognitions()
    assert kept.settings["lungs"] == "labels" and kept.heat_maps is None


def test_cancelled_it_keeps_the_slices_that_were_answered(
    workspace: Workspace, ct: Case, named: Callable[..., tuple[str, ...]]
) -> None:
    control = Control()
    running = run(Recognise(workspace.path, ct.id, named("ct"), 4, device="cpu"), control)
    for event in running:
        if isinstance(event, SliceRecognised):
            control.focus(7)
            break
    following = next(event for event in running if isinstance(event, SliceRecognised))
    assert following.z == 7  # the slice that came on screen meanwhile
    with pytest.raises(JobCancelled):
        while True:
            running.throw(JobCancelled())
    (kept,) = ct.recognitions()
    values = ct.recognition(kept.id).read_probabilities()
    assert not kept.finished and {4, 7} <= set(np.flatnonzero(~np.isnan(values[:, 0])).tolist())


def test_a_model_of_another_modality_says_nothing_and_why(
    workspace: Workspace, ct: Case, xray: Case, named: Callable[..., tuple[str, ...]]
) -> None:
    for case, asked, silent in ((ct, "ct", ("xray",)), (xray, "xray", ("ct", "manifestations"))):
        events = list(run(Recognise(workspace.path, case.id, named(asked, *silent), 0, device="cpu")))
        answers = {one.model_id: one for one in of(ScanRecognised, events)}
        assert {one.model_id for one in of(SliceRecognised, events)} == {f"tiny-{asked}"}
        for name in silent:
            said = answers[f"tiny-{name}"]
            assert (said.probabilities, said.shown, said.recognition_id) == ((), False, "")
            assert "so it says nothing of a" in said.caution
        assert [one.model_id for one in case.recognitions()] == [f"tiny-{asked}"]
    said = answers["tiny-xray"]
    assert said.shown and said.slices == 1 and len(said.probabilities) == 2


def test_a_case_of_something_else_is_kept_from_all(
    workspace: Workspace, ct: Case, named: Callable[..., tuple[str, ...]]
) -> None:
    ct.write_appearance(ct.found, {"kind": "abdomen CT"})
    events = list(run(Recognise(workspace.path, ct.id, named("ct", "manifestations"), 0, device="cpu")))
    assert [one.probabilities for one in of(ScanRecognised, events)] == [(), ()]
    assert not of(SliceRecognised, events) and ct.recognitions() == []


@pytest.mark.parametrize(
    ("names", "told"),
    [((), "There is no model that has learned from such scans"), (("ct", "ct"), "named twice")],
)
def test_what_cannot_be_asked_is_refused(
    workspace: Workspace, ct: Case, named: Callable[..., tuple[str, ...]], names: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        list(run(Recognise(workspace.path, ct.id, named(*names), 0, device="cpu")))


def test_a_model_that_recognises_is_warmed_up(named: Callable[..., tuple[str, ...]]) -> None:
    for name in named("xray", "manifestations"):
        assert isinstance(list(run(WarmUp(name, "cpu")))[-1], Finished)


def test_a_model_that_labels_is_refused(workspace: Workspace, ct: Case, model: str) -> None:
    with pytest.raises(ModelError, match="is for segmentation, it recognises nothing"):
        list(run(Recognise(workspace.path, ct.id, (model,), 0, device="cpu")))


def test_an_x_ray_in_a_file_is_recognised_as_in_a_case_and_its_heat_map_drawn(
    workspace: Workspace,
    xray: Case,
    models: Path,
    named: Callable[..., tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue, "_SHIPPED", models)
    out = tmp_path / "heat.png"
    events = list(run(RecogniseFile(str(tmp_path / "front.dcm"), heat_map=str(out), device="cpu")))
    (said,) = of(ScanRecognised, events)  # by the one that has learned from X-rays, nobody named it
    assert (said.model_id, said.name, said.shown) == ("tiny-xray", "front", True)
    kept = list(run(Recognise(workspace.path, xray.id, named("xray"), 0, device="cpu")))
    assert said.probabilities == pytest.approx(of(ScanRecognised, kept)[0].probabilities, rel=1e-5)
    assert of(Written, events) == [Written(str(out))]
    picture = cv2.imread(str(out))
    left, right = picture[:, :512], picture[:, 520:]
    assert picture.shape == (512, 1032, 3) and (left[..., 0] == left[..., 2]).all()
    assert np.abs(right.astype(int) - left).max() > 50 and (right[..., 0] != right[..., 2]).any()

    nothing = list(run(RecogniseFile(str(tmp_path / "front.dcm"), named("ct"), str(tmp_path / "no.png"))))
    assert "No heat map was written" in of(Notice, nothing)[-1].text and not (tmp_path / "no.png").exists()
    with pytest.raises(JobError, match=r"let it end in \.png\.$"):
        list(run(RecogniseFile(str(tmp_path / "front.dcm"), heat_map="heat.jpg")))


def test_what_is_no_chest_gets_no_probability(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_SHIPPED", models)
    y, x = np.mgrid[:256, :256] / 256
    leg = 90 * np.exp(-(((x - 0.5) / 0.23) ** 4)) + 90 * np.exp(-(((x - 0.5) / 0.1) ** 4))
    noise = np.random.default_rng(0).normal(0, 3, leg.shape)
    body = np.where(np.hypot((y - 0.5) / 0.4, (x - 0.5) / 0.45) < 1, 150 + 10 * noise, 0)
    for name, picture in (("brick", data.brick()), ("leg", leg + noise), ("belly", body)):
        file = tmp_path / f"{name}.png"
        cv2.imwrite(str(file), np.clip(picture, 0, 255).astype(np.uint8))
        (said,) = of(ScanRecognised, list(run(RecogniseFile(str(file), device="cpu"))))
        assert (said.probabilities, said.shown) == ((), False), name
        assert said.caution.endswith("so nothing is recognised in it."), said.caution


def test_the_child_answers_and_is_cancelled_between_slices(
    workspace: Workspace,
    ct: Case,
    named: Callable[..., tuple[str, ...]],
    client: JobClient,
    listener: Listener,
) -> None:
    request = Recognise(workspace.path, ct.id, named("ct", "manifestations"), 4, device="cpu")
    job = client.submit(request)
    listener.until(lambda: of(SliceRecognised, listener.of(job)))
    client.cancel(job)
    events = listener.until_end(job)
    assert isinstance(events[-1], Cancelled | Finished)
    first = of(SliceRecognised, events)[0]
    assert (first.model_id, first.z) == ("tiny-ct", 4)
    assert ct.recognition(first.recognition_id).is_done(4)
