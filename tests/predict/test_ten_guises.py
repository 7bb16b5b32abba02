"""The model that ships labels one slice alike in whatever guise it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from napari_covseg.metrics import dice
from napari_covseg.models.catalogue import DEFAULT, find
from napari_covseg.models.file import Model, load_model
from napari_covseg.predict.volume import predict_volume
from napari_covseg.scans.appearance import look
from napari_covseg.scans.scan import Intensity, Scan
from phantom import phantom

Picture = npt.NDArray[np.int16]
Back = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]
SIDE = 320


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(find(DEFAULT).path, "cpu")
    torch.set_num_threads(before)


def windowed(voxels: Picture, low: float, high: float) -> Picture:
    return np.rint((np.clip(voxels, low, high) - low) * (255 / (high - low))).astype(np.int16)


def slice_of(seed: int) -> Picture:
    """The middle of a phantom: both lungs, the heart and findings."""
    return phantom(seed, (1, SIDE, SIDE), (5.0, 1.2, 1.2)).scan.voxels[0]


def guises(voxels: Picture) -> dict[str, tuple[Picture, Intensity, Back]]:
    """The slice as ten sites would have stored it, and how their labels get back on it."""
    same: Back = lambda labels: labels  # noqa: E731
    lung = windowed(voxels, -1350, 150)
    ys, xs = np.nonzero(voxels > -300)  # the body
    inner = (slice(ys.min() + 12, ys.max() - 12), slice(xs.min() + 12, xs.max() - 12))
    outer = (slice(max(0, ys.min() - 12), ys.max() + 12), slice(max(0, xs.min() - 12), xs.max() + 12))

    def on(box: tuple[slice, slice]) -> Back:
        def back(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
            whole = np.zeros(voxels.shape, np.uint8)
            whole[box] = labels
            return whole

        return back

    clahe = cv2.createCLAHE(4.0, (8, 8)).apply(windowed(voxels, -1024, 1500).astype(np.uint8))
    _, packed = cv2.imencode(".jpg", lung.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 70])
    return {
        "HU": (voxels, "HU", same),
        "lung window": (lung, "grey", same),
        "another lung window": (windowed(voxels, -1000, 400), "grey", same),
        "equalised": (clahe.astype(np.int16), "grey", same),
        "inverted": (np.int16(255) - lung, "grey", same),
        "cropped": (lung[inner], "grey", on(inner)),
        "with a margin": (lung[outer], "grey", on(outer)),
        "turned": (np.rot90(lung), "grey", lambda labels: np.rot90(labels, -1)),
        "mirrored": (lung[:, ::-1], "grey", lambda labels: labels[:, ::-1]),
        "JPEG": (cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE).astype(np.int16), "grey", same),
    }


def lungs_of(model: Model, picture: Picture, intensity: Intensity) -> npt.NDArray[np.uint8]:
    voxels = np.ascontiguousarray(picture)[None]
    spacing = (5.0, 1.2, 1.2) if intensity == "HU" else None
    scan = Scan(voxels, spacing, intensity, np.eye(4), (1, *picture.shape), np.eye(4), name="one slice")
    lungs, _ = predict_volume(scan, model, appearance=look(voxels, intensity))
    return lungs[0]


@pytest.mark.parametrize("seed", [2, 4])
def test_ten_guises_have_the_same_lungs(model: Model, seed: int) -> None:
    voxels = slice_of(seed)
    found = {
        name: back(lungs_of(model, picture, intensity)) > 0
        for name, (picture, intensity, back) in guises(voxels).items()
    }
    assert len(found) == 10
    for one, other in combinations(found, 2):
        assert dice(found[one], found[other]) >= 0.9, (one, other)
