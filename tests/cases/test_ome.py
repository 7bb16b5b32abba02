"""A case is an OME-Zarr 0.5 image that other programs open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from painting import paint

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.labels import GROUPS


def read(path: Path) -> list[Any]:
    from ome_zarr.io import parse_url  # here: a second to load
    from ome_zarr.reader import Reader

    return list(Reader(parse_url(path))())


@pytest.fixture
def labelled(workspace: Workspace, case_id: str) -> OpenCase:
    with OpenCase(workspace, case_id) as opened:
        for value, group in enumerate(GROUPS, start=1):
            paint(opened, group, np.s_[2, 4:9, value:7], value)
    return opened


def test_ome_zarr_py_reads_image_and_labels(labelled: OpenCase) -> None:
    image, *others = read(labelled.case.path)
    assert np.array_equal(image.data[0].compute(), labelled.voxels)
    axes = image.metadata["axes"]
    assert [(axis["name"], axis["type"], axis["unit"]) for axis in axes] == [
        (name, "space", "millimeter") for name in "zyx"
    ]
    assert image.metadata["coordinateTransformations"] == [[{"type": "scale", "scale": [5.0, 0.7, 0.6]}]]
    assert image.metadata["contrast_limits"] == [[-1350, 150]]
    maps = {node.metadata["name"]: node for node in others if node.data}
    assert set(maps) == set(GROUPS)
    for group, labels in GROUPS.items():
        node = maps[group]
        assert np.array_equal(node.data[0].compute(), labelled.live[group])
        assert node.metadata["coordinateTransformations"] == image.metadata["coordinateTransformations"]
        for label in labels:
            assert node.metadata["properties"][label.value]["name"] == label.name
            red, green, blue, alpha = node.metadata["color"][label.value]
            assert tuple(round(255 * part) for part in (red, green, blue)) == label.colour
            assert alpha == 1


def test_the_metadata_follow_the_specification(labelled: OpenCase) -> None:
    models = pytest.importorskip("ome_zarr_models.v05")
    case = zarr.open_group(labelled.case.path, mode="r")
    image = models.Image.from_zarr(case)
    assert image.attributes.ome.version == "0.5"
    for group in GROUPS:
        label = models.ImageLabel.from_zarr(case[f"labels/{group}"])
        assert label.attributes.ome.image_label.source.image == "../../"
    assert models.labels.Labels.from_zarr(case["labels"])


def test_pictures_have_no_unit(workspace: Workspace, scan_maker: Any) -> None:
    case = workspace.case(workspace.add_case(scan_maker(intensity="grey")))
    image, *_ = read(case.path)
    assert all("unit" not in axis for axis in image.metadata["axes"])
    assert image.metadata["coordinateTransformations"] == [[{"type": "scale", "scale": [1.0, 1.0, 1.0]}]]
    assert image.metadata["contrast_limits"] == [[0, 255]]
    pytest.importorskip("ome_zarr_models.v05").Image.from_zarr(zarr.open_group(case.path, mode="r"))


def test_arrays_lie_as_they_should(workspace: Workspace, case_id: str) -> None:
    case = workspace.case(case_id)
    case.begin_prediction("m", {}, ["a"], 0, probabilities=True)
    arrays = {
        name: array
        for name, array in zarr.open_group(case.path, mode="r").members(max_depth=None)
        if isinstance(array, zarr.Array)
    }
    assert len(arrays) == 12
    assert all(array.shards is None and array.metadata.zarr_format == 3 for array in arrays.values())
    volumes = [array for array in arrays.values() if array.shape == case.shape]
    assert len(volumes) == 7
    assert all(array.chunks == (1, 32, 24) for array in volumes)
    assert all(array.metadata.dimension_names == ("z", "y", "x") for array in volumes)
    kinds = {name: str(array.dtype) for name, array in arrays.items()}
    assert kinds["0"] == "int16"
    assert kinds["labels/lungs/0"] == kinds["review"] == "uint8"
    assert kinds["labels/lesions/touched"] == "uint8"


def test_napari_own_reader_asks_for_no_more_than_there_is(workspace: Workspace, case_id: str) -> None:
    from napari_builtins.io import napari_get_reader

    for strokes in (3, 2):  # the second time there is a session as well
        with OpenCase(workspace, case_id) as opened:
            for n in range(strokes):
                paint(opened, "lesions", np.s_[1 + n, 3:9, 3:9], 2)
            opened.flush()
            folder = Path(workspace.path, "cases", case_id)
            for name in ("history/revisions", "history", "."):
                read = napari_get_reader(str(folder / name))
                assert read is not None
                arrays = read(str(folder / name))[0][0]
                for array in arrays if isinstance(arrays, list) else [arrays]:
                    assert array.nbytes < 1 << 20, array.shape
                    assert np.asarray(array).any() or array.size == 1


def test_a_history_that_was_declared_too_large_is_declared_anew(workspace: Workspace, case_id: str) -> None:
    with OpenCase(workspace, case_id) as opened:
        paint(opened, "lesions", np.s_[1, 3:9, 3:9], 2)
    for name in ("revisions", "sessions"):
        path = Path(workspace.path, "cases", case_id, "history", name, "zarr.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"shape": [2**31 - 1] * 2}))
    with OpenCase(workspace, case_id) as opened:
        paint(opened, "lesions", np.s_[2, 3:9, 3:9], 2)
        assert [revision.number for revision in opened.history()] == [1, 2]
    for name in ("revisions", "sessions"):
        path = Path(workspace.path, "cases", case_id, "history", name, "zarr.json")
        assert json.loads(path.read_text())["shape"][0] <= 64
