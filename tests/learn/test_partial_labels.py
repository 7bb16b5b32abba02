"""A source teaches what it labels and nothing else."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from make_phantom import write
from napari_covseg.errors import ScanError
from napari_covseg.learn.loss import Loss
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices, shrink
from napari_covseg.learn.training_set import read_training_set
from napari_covseg.models.preparation import Preparation
from phantom import phantom

FOUR = ("lungs", "ground-glass", "consolidation", "pleural effusion")


def save(path: Path, values: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def read(folder: Path, sources: str, outputs: tuple[str, ...] = FOUR) -> LabelledSlices:
    path = folder / "all.toml"
    path.write_text(sources, encoding="utf-8")
    return read_training_set(path, outputs=outputs, size=32)


def states(data: LabelledSlices, row: int, y: int, x: int) -> dict[str, int]:
    return dict(zip(data.outputs, data.masks[row, :, y, x].tolist(), strict=True))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """One patient whose findings nobody told apart, two pictures in which somebody did, one without lungs."""
    grey = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    square = np.zeros((32, 32), np.uint8)
    square[4:8, 4:8] = 255
    for part, values in (("ct", grey), ("lungs", np.full_like(grey, 255)), ("infection", square)):
        save(tmp_path / "whole" / "anna" / part / "1.png", values)
    save(tmp_path / "some" / "bert" / "ct" / "1.png", grey)
    save(tmp_path / "some" / "bert" / "ct" / "2.png", grey)
    save(tmp_path / "some" / "bert" / "infection" / "1.png", 0 * grey)
    palette = np.zeros((32, 32), np.uint8)
    palette[4:8, 4:8], palette[4:8, 8:12] = 1, 2
    for number in (3, 40):
        save(tmp_path / "images" / f"{number}.jpg", grey)
        save(tmp_path / "masks" / f"{number}.png", palette)
    return tmp_path


def test_findings_that_nobody_told_apart_teach_their_union(pictures: Path) -> None:
    data = read(pictures, '[[source]]\npatients = "whole"\n')
    assert data.outputs == (*FOUR, "lesion")
    assert states(data, 0, 5, 5) == {
        "lungs": 1, "ground-glass": UNKNOWN, "consolidation": UNKNOWN,
        "pleural effusion": 0, "lesion": 1,
    }  # fmt: skip
    assert states(data, 0, 20, 20) == {
        "lungs": 1, "ground-glass": 0, "consolidation": 0, "pleural effusion": 0, "lesion": 0,
    }  # fmt: skip


def test_a_slice_without_a_lung_mask_teaches_no_lungs(pictures: Path) -> None:
    data = read(pictures, '[[source]]\npatients = "some"\npartial = true\n')
    assert len(data) == 1  # of the other slice nothing is known
    assert states(data, 0, 5, 5)["lungs"] == UNKNOWN
    assert states(data, 0, 5, 5)["lesion"] == 0


def test_findings_that_are_told_apart(pictures: Path) -> None:
    values = 'pictures = "images"\nmasks = "masks"\nvalues = { 1 = "ground-glass", 2 = "consolidation" }'
    data = read(pictures, f'[[source]]\n{values}\nnumbers = [0, 9]\npatient = "A"\nname = "B"\n')
    assert (data.patients.tolist(), data.sources.tolist() if data.sources is not None else []) == (
        ["A"],
        ["B"],
    )
    assert states(data, 0, 5, 5) == {
        "lungs": UNKNOWN, "ground-glass": 1, "consolidation": 0, "pleural effusion": 0, "lesion": 1,
    }  # fmt: skip
    assert states(data, 0, 5, 9)["consolidation"] == 1
    assert states(data, 0, 20, 20)["pleural effusion"] == UNKNOWN  # nobody looked for it there
    assert states(data, 0, 20, 20)["lesion"] == 0


def test_one_output_alone_can_be_taught(pictures: Path) -> None:
    data = read(pictures, '[[source]]\npatients = "whole"\n', ("consolidation",))
    assert data.outputs == ("consolidation",)
    assert np.unique(data.masks).tolist() == [0, UNKNOWN]


def test_a_scan_that_is_free_of_something(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 400, (4, 32, 32)).astype(np.int16)
    affine = np.diag([-1.0, -1.0, 5.0, 1.0])
    fluid = np.zeros_like(voxels)
    fluid[2, 3:6, 3:6] = 1
    for name, values in (("scan", voxels), ("fluid", fluid)):
        nib.save(nib.Nifti1Image(values.transpose(2, 1, 0), affine), tmp_path / f"{name}.nii.gz")
    data = read(tmp_path, '[[source]]\nscan = "scan.nii.gz"\neffusion = "fluid.nii.gz"\nslices = [2, 2]\n')
    assert data.kinds is not None and data.kinds.tolist() == ["HU"]
    np.testing.assert_array_equal(data.images[0], voxels[2])
    absent = dict.fromkeys(("ground-glass", "consolidation", "lesion"), 0)
    assert states(data, 0, 4, 4) == {"lungs": UNKNOWN, "pleural effusion": 1, **absent}
    assert states(data, 0, 20, 20) == dict.fromkeys((*FOUR, "lesion"), UNKNOWN) | {"pleural effusion": 0}
    free = 'free_of = ["ground-glass", "consolidation"]\nunlabelled = [[1, 1, 0, 9, 0, 9]]\nslices = [1, 1]'
    data = read(tmp_path, f'[[source]]\nscan = "scan.nii.gz"\n{free}\n')
    assert states(data, 0, 20, 20) == dict.fromkeys(FOUR, UNKNOWN) | {
        "ground-glass": 0, "consolidation": 0, "lesion": 0,
    }  # fmt: skip
    assert states(data, 0, 5, 5)["lesion"] == UNKNOWN  # a nodule, say


@pytest.mark.slow
def test_volumes_that_are_labelled_whole_teach_everything(tmp_path: Path) -> None:
    for seed in (1000, 1001):
        made = phantom(seed, (3, 64, 64), (80.0, 5.6, 5.6), lesions=seed == 1000)
        write(tmp_path / "whole" / f"phantom {seed}", made)
    data = read(tmp_path, '[[source]]\nvolumes = "whole"\n')
    assert set(data.patients.tolist()) == {"phantom 1000", "phantom 1001"}
    assert not (data.masks == UNKNOWN).any()
    assert (data.only({"phantom 1000"}).masks[:, -1] == 1).any()
    assert not (data.only({"phantom 1001"}).masks[:, 1:] == 1).any()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "whole").rename(tmp_path / "elsewhere" / "whole")
    moved = read(tmp_path, '[[source]]\nroot = "elsewhere"\nvolumes = "whole"\n')
    assert moved.checksum() == data.checksum()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('pictures = "images"\nmasks = "masks"\nvalues = { 1 = "nodule" }', "not known: nodule"),
        ('pictures = "images"', "need masks"),
        ('patients = "whole"\nkind = "HU"', "not grey or equalised"),
        ('volumes = "absent"', "no folder .*absent"),
    ],
)
def test_a_source_that_cannot_be_meant(pictures: Path, source: str, message: str) -> None:
    with pytest.raises(ScanError, match=message):
        read(pictures, f"[[source]]\n{source}\n")


def test_prepared_slices_are_equalised_once(pictures: Path) -> None:
    text = '[[source]]\npatients = "whole"\nkind = "{}"\n'
    preparation = Preparation(size=32)
    grey, equalised = (
        read(pictures, text.format(kind)).prepared(preparation) for kind in ("grey", "equalised")
    )
    assert grey.kinds is None
    np.testing.assert_array_equal(
        equalised.images[0], preparation(np.tile(np.arange(0, 256, 8), (32, 1)), "grey", equalised=True)
    )
    assert (grey.images != equalised.images).any()


def test_unknown_pixels_stay_unknown_when_a_mask_is_resized() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32], mask[40:50, :20] = UNKNOWN, 1
    small = shrink(mask, 32)
    assert (small[:16] == UNKNOWN).all()
    assert (small[20:25, :10] == 1).all()
    assert (shrink(np.full((30, 20), UNKNOWN, np.uint8), 16) == UNKNOWN).all()


KINDS = ("dice", "bce", "bce_dice", "bce_dice_squared")


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_pixels_do_not_count(kind: str) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, generator=rng)
    target = (torch.rand(2, 1, 8, 8, generator=rng) > 0.5).to(torch.uint8)
    part = target.clone()
    part[..., 4:] = UNKNOWN
    loss = Loss(kind, outputs=("lungs",))
    torch.testing.assert_close(
        loss({"lungs": logits}, part), loss({"lungs": logits[..., :4]}, target[..., :4])
    )
    other = logits.clone()
    other[..., 4:] = 50
    torch.testing.assert_close(loss({"lungs": other}, part), loss({"lungs": logits}, part))


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_of_which_nothing_is_known_costs_nothing(kind: str) -> None:
    logits = {name: torch.randn(1, 1, 8, 8, requires_grad=True) for name in ("lungs", "pleural effusion")}
    targets = torch.ones(1, 2, 8, 8, dtype=torch.uint8)
    targets[:, 1] = UNKNOWN
    loss = Loss(kind, outputs=tuple(logits))(logits, targets)
    torch.testing.assert_close(
        loss, Loss(kind, outputs=("lungs",))({"lungs": logits["lungs"]}, targets[:, :1])
    )
    loss.backward()
    fluid = logits["pleural effusion"].grad
    assert fluid is None or not fluid.any()


def test_a_union_teaches_both_of_its_parts() -> None:
    heads = {
        name: torch.full((1, 1, 4, 4), -2.0, requires_grad=True) for name in ("ground-glass", "consolidation")
    }
    targets = torch.full((1, 3, 4, 4), UNKNOWN, dtype=torch.uint8)
    targets[:, 2] = 1  # a lesion, whichever
    Loss("bce", outputs=("ground-glass", "consolidation", "lesion"))(heads, targets).backward()
    for head in heads.values():
        assert head.grad is not None
        assert (head.grad < 0).all()


def test_licences_of_sources(pictures: Path) -> None:
    stated = '[[source]]\nname = "A"\npatients = "whole"\nlicence = "CC BY 4.0"\n'
    data = read(pictures, f'{stated}[[source]]\nname = "B"\npatients = "some"\npartial = true\n')
    assert data.licences == {"A": "CC BY 4.0", "B": "not stated"}
    with pytest.raises(ScanError, match="allows no derivatives, and weights are one: leave it out"):
        read(pictures, stated.replace("BY", "BY-NC-ND"))
