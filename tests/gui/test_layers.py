from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_covseg.labels import GROUPS, Group
from napari_covseg.panels.layers import (
    WINDOWS,
    grey_limits,
    label_colours,
    label_name,
    labels_layer,
    scan_layer,
)


@pytest.mark.parametrize("group", GROUPS)
def test_labels_have_the_colours_of_anatomy(group: Group) -> None:
    layer = labels_layer(group, np.zeros((2, 9, 9), np.uint8), (5.0, 1.0, 1.0))
    for label in GROUPS[group]:
        assert layer.get_color(label.value)[:3] == pytest.approx(np.array(label.colour) / 255, abs=0.01)
        assert label_name(group, label.value) == label.name
    assert label_colours(group).map(np.array([0, 99], np.uint8))[:, 3].tolist() == [0, 0]
    assert label_name(group, 0) == ""


def test_what_lies_under_labels_stays_visible() -> None:
    values = np.zeros((2, 9, 9), np.uint8)
    lungs, lesions = (labels_layer(group, values, None) for group in ("lungs", "lesions"))
    assert lungs.opacity < 0.3 and lesions.contour > 0
    assert lesions.data is values  # edited in place


def test_lesions_are_seen_within_lungs_and_bones_in_3d(make_napari_viewer: Any, recwarn: Any) -> None:
    viewer = make_napari_viewer(show=True)
    lungs, lesions, voxels = (np.zeros((12, 64, 64), kind) for kind in (np.uint8, np.uint8, np.int16))
    lungs[2:10, 8:56, 8:56], lesions[4:8, 24:40, 24:40] = 1, 3
    voxels[[0, -1]] = 1000
    layers = [scan_layer(voxels, "x", (5.0, 1.0, 1.0), hu=True)]
    layers += [
        labels_layer(group, {"lungs": lungs, "lesions": lesions}[group], None, layers[0]) for group in GROUPS
    ]
    for layer in layers:
        viewer.add_layer(layer)

    def colour(*visible: str) -> list[int]:
        for layer in layers:
            layer.visible = layer.name.split()[-1] in visible
        picture = viewer.screenshot(canvas_only=True, flash=False)
        return picture[len(picture) // 2, picture.shape[1] // 2, :3].tolist()

    viewer.dims.ndisplay = 3
    assert not [one for one in recwarn if "Contours" in str(one.message)]  # napari would show it each time
    lesion = colour("Lesions")
    assert lesion not in ([0, 0, 0], colour("Lungs"), colour("x"))
    assert colour("Lungs", "Lesions") == colour("x", "Lesions") == colour("x", "Lungs", "Lesions") == lesion


def test_windows_are_the_fields() -> None:
    assert {name: (w.level, w.width) for name, w in WINDOWS.items()} == {
        "Lung": (-600, 1500),
        "Mediastinum": (40, 400),
        "Bone": (400, 1800),
    }
    assert WINDOWS["Lung"].limits == (-1350, 150)


def test_pictures_open_in_their_own_range() -> None:
    picture = np.arange(20, dtype=np.int16).reshape(1, 4, 5)
    assert tuple(scan_layer(picture, "x", None, hu=False).contrast_limits) == (0, 19)
    assert grey_limits(np.zeros((1, 4, 5), np.int16)) == (0, 1)
