"""Each kind of network, and each that is shipped, labels in the real window, and its card can be read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari import Viewer

from napari_covseg.cases.case import Review
from napari_covseg.cases.prediction import Prediction
from napari_covseg.metrics import dice
from napari_covseg.models.card import read_card
from napari_covseg.models.catalogue import DEFAULT, find
from napari_covseg.models.installed import install, repository_weights
from napari_covseg.networks.catalogue import CATALOGUE
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.segment.labelling import UNCERTAINTY
from napari_covseg.scans import Scan
from phantom import phantom

LONG = 170_000  # ms; the child has to load torch first
FAMILIES = sorted({"efficientunet", *(entry.network for entry in CATALOGUE)})


@pytest.fixture(scope="module")
def tiny_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    # in a process of its own, because torch must not be loaded in this one
    subprocess.run([sys.executable, Path(__file__).with_name("tiny_networks.py"), folder], check=True)
    return folder


@pytest.fixture
def installed(tiny_networks: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COVSEG_MODELS", str(tiny_networks))
    return tiny_networks


@pytest.fixture
def small_dock(
    installed: Path,
    workbench: tuple[Viewer, CovSegDock],
    scan: Scan,
    add_scan: Callable[[Viewer, Scan], Any],
    qtbot: Any,
) -> CovSegDock:
    """The dock with three slices open; as pictures, in which no HU say that random lungs are none."""
    viewer, dock = workbench
    voxels = scan.voxels[5:8].copy()
    pictures = {"intensity": "grey", "spacing": None}
    add_scan(viewer, replace(scan, voxels=voxels, source_shape=voxels.shape, **pictures))
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    return dock


def labelled(dock: CovSegDock, qtbot: Any) -> Prediction:
    """Press *Run* and return what it made."""
    session = dock.session
    assert session.case is not None
    dock.segment.run.click()
    qtbot.waitUntil(lambda: not session.busy_with, timeout=LONG)
    run = session.case.case.prediction(session.case.case.predictions()[-1].id)
    assert run.info.finished and (session.case.review == Review.PREDICTED).all()
    return run


@pytest.mark.timeout(600)  # a dozen predictions
def test_every_network_labels_and_its_card_can_be_read(
    small_dock: CovSegDock, qtbot: Any, notified: list[str]
) -> None:
    step, session = small_dock.segment, small_dock.session
    assert session.layers is not None
    for family in FAMILIES:
        name = f"tiny-{family}"
        step.model.choose(name)
        assert step.model.currentText() == f"{name}: A tiny {family} (installed)"
        assert f"Random weights of {family}." in step.card.text()
        step.read_card.click()
        page = step.card_window.page.toPlainText()
        for said in (
            name,
            "installed",
            family,
            "0.5 (95 % interval 0.400 to 0.600)",
            "CC0",
            "not for diagnosis",
        ):
            assert said in page, (family, said)
        assert step.card_window.isVisible()
        run = labelled(small_dock, qtbot)
        assert run.info.model_id == name
        lungs = session.layers.labels["lungs"].data
        assert lungs.any(), family
        assert f"predicted by {name}, not" in step.status.text()
    step.card_window.close()
    assert not notified

    # and several of them at once, with a layer that says where they disagree
    options = step.options
    step.model.choose("tiny-unet")
    assert len(options.others.menu().actions()) == len(FAMILIES)  # with the one of the package
    other = next(one for one in options.others.menu().actions() if "unetpp" in one.text())
    other.setChecked(True)
    assert options.others.text() == "1 other model"
    options.tta.setCurrentIndex(options.tta.findData("flip"))
    options.threshold.setValue(0.3)
    options.smallest.setValue(3)
    assert options.smallest.text() == "3 pixels"  # the size of a voxel is not known
    options.uncertainty.setChecked(True)
    run = labelled(small_dock, qtbot)
    settings = run.info.settings
    assert (settings["also"], settings["tta"]) == (["tiny-unetpp"], "flip")
    assert (settings["threshold"], settings["min_ml"], settings["min_pixels"]) == (0.3, 0, 3)
    assert settings["uncertainty"] == "spread"
    layer = session.viewer.layers[UNCERTAINTY]
    for z in range(3):
        kept = run.read_uncertainty(z)
        assert kept is not None and kept.any()
        np.testing.assert_array_equal(layer.data[z], kept)
    assert step.status.text().endswith("predicted by tiny-unet and 1 other, not reviewed")

    options.uncertainty.setChecked(False)
    assert labelled(small_dock, qtbot).read_uncertainty(0) is None
    assert UNCERTAINTY not in session.viewer.layers


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of all models that come with the repository and label pixels, installed."""
    monkeypatch.setenv("COVSEG_MODELS", str(tmp_path / "models"))
    folder = repository_weights()
    assert folder is not None
    labelling = [
        file for file in sorted(folder.glob("*.safetensors")) if read_card(file).task == "segmentation"
    ]
    return [DEFAULT, *(install(file.stem)[0].id for file in labelling)]


@pytest.mark.timeout(600)
def test_each_shipped_network_labels_the_phantom(
    shipped: list[str],
    workbench: tuple[Viewer, CovSegDock],
    add_scan: Callable[[Viewer, Scan], Any],
    qtbot: Any,
    notified: list[str],
) -> None:
    viewer, dock = workbench
    made = phantom(21, shape=(3, 128, 128), spacing=(40, 2.8, 2.8))
    add_scan(viewer, made.scan)
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    step, session = dock.segment, dock.session
    assert session.layers is not None
    assert len(shipped) > 1
    for name in shipped:
        step.model.choose(name)
        step.read_card.click()
        page = step.card_window.page.toPlainText()
        # a model on all patients has no cross-validation of its own
        crossed = "cross-validation" in find(name).card.scores
        measured = ("cross-validation", "95 % interval") if crossed else ()
        for said in (name, *measured, "CC BY-NC-SA", "not for diagnosis"):
            assert said in page, (name, said)
        run = labelled(dock, qtbot)
        assert run.info.model_id == name
        lungs = np.stack([run.read_slice(z)[0] for z in range(3)])
        np.testing.assert_array_equal(session.layers.labels["lungs"].data, lungs)
        assert dice(lungs > 0, made.lungs > 0) > 0.8, name
        assert session.layers.labels["lesions"].data[made.lesions > 0].any(), name
    step.card_window.close()
    assert not notified


def test_the_layer_goes_with_its_case(small_dock: CovSegDock) -> None:
    session = small_dock.session
    uncertainty = small_dock.workbench.labelling.uncertainty
    uncertainty.begin()
    assert uncertainty.layer is not None and session.viewer.layers.index(uncertainty.layer) == 1
    session.viewer.layers.remove(uncertainty.layer)
    uncertainty.take("no such run", 0)  # a person took the layer out: nothing more is drawn, or told
    uncertainty.begin()
    small_dock.workbench.opening.close()
    assert not session.viewer.layers


def test_a_file_is_installed_from_the_list(
    workbench: tuple[Viewer, CovSegDock],
    model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    notified: list[str],
) -> None:
    step = workbench[1].segment
    before = step.chosen
    asked = "napari_covseg.panels.segment.segment_step.QFileDialog.getOpenFileName"
    monkeypatch.setattr(asked, lambda *_, **__: ("", ""))
    step.model.setCurrentIndex(step.model.count() - 1)
    assert step.chosen == before and step.model.currentIndex() == 0  # nothing was chosen
    monkeypatch.setattr(
        "napari_covseg.panels.segment.segment_step.QFileDialog.getOpenFileName",
        lambda *_, **__: (str(model_file), ""),
    )
    step.model.setCurrentIndex(step.model.count() - 1)
    assert step.model.currentText() == "thresholds: Thresholds (installed)"
    assert (tmp_path / "models" / "thresholds.safetensors").read_bytes() == model_file.read_bytes()
    assert notified == ["Installed thresholds: Thresholds."]
    # what another program takes away is gone when the list opens
    shutil.rmtree(tmp_path / "models")
    step.model.opening.emit()
    assert "thresholds" not in [choice.name for choice in step.model.choices]


def test_a_name_that_is_too_long_ends_in_an_ellipsis(
    workbench: tuple[Viewer, CovSegDock], qtbot: Any
) -> None:
    _, dock = workbench
    model = dock.segment.model
    assert model.choice is not None
    card = model.choice.card
    short = replace(model.choice, card=replace(card, title="U-Net"))
    long = replace(model.choice, card=replace(card, title="A network with a very long name " * 3))
    model.fill([short], short.name)
    assert model.shown == f"{card.id}: U-Net"
    model.fill([long], long.name)
    qtbot.waitUntil(lambda: model.shown.endswith("…"))
    field = model.width() - 20
    assert model.fontMetrics().horizontalAdvance(model.shown) < field
    assert long.title.startswith(model.shown[:-1].strip())
