"""Labelled slices from folders of pictures and from descriptions, or one sentence that says why not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from napari_covseg.errors import ScanError
from napari_covseg.learn.slices import PLAIN, UNKNOWN, LabelledSlices
from napari_covseg.learn.training_set import read_training_set
from napari_covseg.models.preparation import Preparation

SMALL = Preparation(size=64)


def picture(seed: int, shape: tuple[int, int] = (64, 64)) -> npt.NDArray[np.uint8]:
    values = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    values[0, :2] = 0, 255
    return values


def save(path: Path, values: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def make_patient(folder: Path, names: str = "ab", lesions: str = "infection", seed: int = 0) -> None:
    for number, name in enumerate(names):
        save(folder / "ct" / f"{name}.png", picture(seed + number))
        save(folder / "lungs" / f"{name}.png", ((picture(seed + number) > 128) * 255).astype(np.uint8))
        save(folder / lesions / f"{name}.png", (picture(seed + number) > 200).astype(np.uint8))


def describe(folder: Path, text: str) -> Path:
    path = folder / "training.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def volume(tmp_path: Path) -> npt.NDArray[np.int16]:
    """Five slices of 40 x 64, on disk as scan.nii.gz with lungs.nii.gz (0-255) and lesions.nii.gz."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(-1024, 1200, (5, 40, 64)).astype(np.int16)
    affine = np.diag([-0.7, -0.7, 5.0, 1.0])  # x to the left, y to the back, z to the head
    for name, values in {
        "scan": voxels,
        "lungs": np.where(voxels < -300, 200, 60).astype(np.uint8),
        "lesions": (voxels > 900).astype(np.uint8),
    }.items():
        nib.save(nib.Nifti1Image(values.transpose(2, 1, 0), affine), tmp_path / f"{name}.nii.gz")
    return voxels


# Folders


def test_a_folder_of_patients(tmp_path: Path) -> None:
    make_patient(tmp_path / "zoe", "ab")
    make_patient(tmp_path / "adam", "c", lesions="lesions", seed=7)
    (tmp_path / "notes").mkdir()  # no ct inside: not a patient
    got = read_training_set(tmp_path, SMALL)
    assert got.patients.tolist() == ["adam", "zoe", "zoe"]
    assert got.images.dtype == np.uint8
    assert got.masks.dtype == np.uint8
    assert got.masks.shape == (3, len(PLAIN), 64, 64)
    for row, seed in enumerate((7, 0, 1)):
        np.testing.assert_array_equal(got.images[row], SMALL(picture(seed), "grey"))
        np.testing.assert_array_equal(got.masks[row, 0], picture(seed) > 128)
        np.testing.assert_array_equal(got.masks[row, 1], picture(seed) > 200)
    assert (got.folds, got.validation, got.licence, got.negatives) == ({}, {}, "", frozenset())


def test_pictures_and_masks_are_brought_to_size_together(tmp_path: Path) -> None:
    truth = np.zeros((200, 120), np.uint8)
    truth[50:150, 30:90] = 255
    for kind in ("ct", "lungs", "infection"):
        save(tmp_path / "p" / kind / "1.png", truth)
    got = read_training_set(tmp_path, SMALL)
    bright = got.images[0] > 127
    np.testing.assert_array_equal(got.masks[0, 0], got.masks[0, 1])
    assert np.count_nonzero(bright != got.masks[0, 0]) <= 4  # of 32 x 19 pixels, at the corners
    assert np.argwhere(got.masks[0, 0]).max(0).tolist() == [47, 28]  # 150 and 90 of 200


def test_a_missing_mask(tmp_path: Path) -> None:
    make_patient(tmp_path / "p")
    (tmp_path / "p" / "infection" / "b.png").unlink()
    with pytest.raises(ScanError, match=r"The mask .*b\.png is missing: each slice in .*ct needs one"):
        read_training_set(tmp_path, SMALL)


def test_a_mask_of_another_shape(tmp_path: Path) -> None:
    make_patient(tmp_path / "p")
    save(tmp_path / "p" / "lungs" / "b.png", picture(0, (32, 64)))
    with pytest.raises(ScanError, match=r"The mask .*b\.png has the shape \(32, 64\), its slice \(64, 64\)"):
        read_training_set(tmp_path, SMALL)


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    make_patient(tmp_path / "p")
    (tmp_path / "p" / "ct" / "Thumbs.db").write_bytes(b"\0" * 99)
    with pytest.raises(ScanError, match=r"Thumbs\.db cannot be read as a picture"):
        read_training_set(tmp_path, SMALL)


def test_a_folder_without_patients(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="holds no labelled slices: each patient needs a folder"):
        read_training_set(tmp_path, SMALL)


@pytest.mark.parametrize("name", ["absent", "absent.toml", "scan.nii.gz"])
def test_neither_folder_nor_description(tmp_path: Path, volume: object, name: str) -> None:
    with pytest.raises(ScanError, match=r"neither a folder of patients nor a \.toml description"):
        read_training_set(tmp_path / name, SMALL)


# Descriptions


def test_pictures_without_lungs_have_no_finding_of_any_kind(tmp_path: Path) -> None:
    make_patient(tmp_path / "pictures" / "adam", "ab")
    outputs = ("lungs", "lesion", "pleural effusion")
    for negative in ("true", "false"):
        text = f'[[source]]\npatients = "pictures"\nnegative = {negative}'
        got = read_training_set(describe(tmp_path, text), SMALL, outputs)
        assert (got.masks[:, 2] == UNKNOWN).any() == (negative == "false")


def test_a_description_of_several_sources(tmp_path: Path, volume: npt.NDArray[np.int16]) -> None:
    make_patient(tmp_path / "pictures" / "adam", "ab")
    got = read_training_set(
        describe(
            tmp_path,
            """
            licence = "CC0"
            [[source]]
            patients = "pictures"
            [[source]]
            scan = "scan.nii.gz"
            lungs = "lungs.nii.gz"
            threshold = 128
            patient = "eve"
            weight = 2
            [[source]]
            scan = "scan.nii.gz"
            slices = [3, 4]
            negative = true
            patient = "eve's neck"
            [folds]
            1 = ["adam"]
            2 = ["eve"]
            [validation]
            1 = ["eve"]
            """,
        ),
        SMALL,
    )
    assert got.patients.tolist() == ["adam"] * 2 + ["eve"] * 5 + ["eve's neck"] * 2
    assert got.negatives == {"eve's neck"}
    assert got.folds == {"1": ["adam"], "2": ["eve"]}
    assert got.validation == {"1": ["eve"]}
    assert got.licence == "CC0"
    assert got.weights == {"eve": 2.0}
    for row, z in enumerate([0, 1, 2, 3, 4, 3, 4], start=2):
        np.testing.assert_array_equal(got.images[row], SMALL(volume[z], "HU"))
        lungs = volume[z] < -300 if row < 7 else np.zeros((40, 64), bool)
        np.testing.assert_array_equal(got.masks[row, 0, :40], lungs)
        assert not got.masks[row, 0, 40:].any()  # the padding that made it square
        # nobody has drawn lesions in the scan; slices without lung have none
        assert (got.masks[row, 1] == (UNKNOWN if row < 7 else 0)).all()


def test_a_scan_with_lesions(tmp_path: Path, volume: npt.NDArray[np.int16]) -> None:
    masks = 'lungs = "lungs.nii.gz"\nlesions = "lesions.nii.gz"\nslices = [2, 2]'
    got = read_training_set(describe(tmp_path, f'[[source]]\nscan = "scan.nii.gz"\n{masks}'), SMALL)
    assert got.patients.tolist() == ["scan"]
    np.testing.assert_array_equal(got.masks[0, 1, :40], volume[2] > 900)
    assert got.masks[0, 0, :40].all()  # without a threshold, all above 0


def test_a_mask_is_read_by_its_own_values_and_place(tmp_path: Path, volume: npt.NDArray[np.int16]) -> None:
    """Not stretched to 0-255 as a picture would be, and turned to the scan if it was stored otherwise."""
    lungs = np.where(volume < -300, 130.0, 120.0) + np.random.default_rng(1).normal(0, 1, volume.shape)
    lungs[0, 0, 0], lungs[0, 0, 1] = -114.9, 342.3
    upside_down = np.diag([-0.7, 0.7, 5.0, 1.0])
    upside_down[1, 3] = -39 * 0.7
    stored = lungs[:, ::-1].transpose(2, 1, 0).astype(np.float32)
    nib.save(nib.Nifti1Image(stored, upside_down), tmp_path / "soft.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros_like(stored, np.uint8), upside_down), tmp_path / "none.nii.gz")
    text = 'lungs = "soft.nii.gz"\nthreshold = 125\nlesions = "none.nii.gz"'
    got = read_training_set(describe(tmp_path, f'[[source]]\nscan = "scan.nii.gz"\n{text}'), SMALL)
    np.testing.assert_array_equal(got.masks[:, 0, :40], lungs > 125)
    assert not got.masks[:, 1].any()


def test_the_data_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_patient(tmp_path / "data" / "adam")
    monkeypatch.setenv("SOME_DATA", str(tmp_path / "data"))
    monkeypatch.chdir("/")
    for root in ("$SOME_DATA", "data", str(tmp_path / "data").replace("\\", "/")):
        text = f'root = "{root}"\n[[source]]\npatients = "."'
        assert len(read_training_set(describe(tmp_path, text), SMALL)) == 2


def test_a_variable_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_DATA", raising=False)
    with pytest.raises(ScanError, match=r"needs the variable \$SOME_DATA: set it"):
        read_training_set(describe(tmp_path, 'root = "$SOME_DATA"'), SMALL)


SCAN = '[[source]]\nscan = "scan.nii.gz"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[source]", "is not valid TOML"),
        ("", "holds no labelled slices"),
        ("[[source]]\nlungs = 'lungs.nii.gz'", "needs one of patients, pictures, scan"),
        ("source = ['pictures']", "needs one of patients, pictures, scan"),
        ("source = 3", "needs one of patients, pictures, scan"),
        (SCAN + "patients = '.'", "needs one of patients, pictures, scan"),
        ("[[source]]\npatients = ['adam']", "patients = "),
        ("[[source]]\npatients = 'absent'", "There is no folder .*absent"),
        (SCAN, "needs either a mask"),
        (SCAN + "lungs = 'lungs.nii.gz'\nnegative = true", "needs either a mask"),
        (SCAN + "lung = 'lungs.nii.gz'", "has a setting that it cannot have, lung: remove it"),
        ("[[source]]\npatients = '.'\nlungs = 'lungs.nii.gz'", "has a setting that it cannot have, lungs"),
        (SCAN + "lungs = 'absent.nii.gz'", "absent"),
        (SCAN + "negative = 'yes'", "negative = 'yes'"),
        (SCAN + "negative = true\nslices = [3, 5]", "has no slices 3 to 5: it has 0 to 4"),
        (SCAN + "negative = true\nslices = [-1, 2]", "has no slices -1 to 2"),
        (SCAN + "negative = true\nslices = [3]", r"are not \[first, last\]"),
        (SCAN + "negative = true\nslices = [0.5, 2]", r"are not \[first, last\]"),
        (SCAN + "negative = true\n" + SCAN + "lungs = 'lungs.nii.gz'", "has labelled and negative slices"),
        (SCAN + "negative = true\nweight = 0", "has a weight that is not above 0"),
        (SCAN + "lungs = 'other.nii.gz'", r"The mask .*other\.nii\.gz has the shape"),
    ],
)
def test_a_description_that_cannot_be_meant(tmp_path: Path, volume: object, text: str, message: str) -> None:
    other = nib.Nifti1Image(
        np.arange(4 * 64 * 40, dtype=np.int16).reshape(64, 40, 4), np.diag([-0.7, -0.7, 5, 1])
    )
    nib.save(other, tmp_path / "other.nii.gz")
    with pytest.raises(ScanError, match=message) as error:
        read_training_set(describe(tmp_path, text), SMALL)
    assert "\n" not in str(error.value)


def test_a_description_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes('licence = "für"'.encode("latin-1"))
    with pytest.raises(ScanError, match="is not valid TOML"):
        read_training_set(tmp_path / "a.toml", SMALL)


# In memory


def test_only_some_patients(data: LabelledSlices) -> None:
    some = data.only({"anna", "cleo", "nobody"})
    assert some.patients.tolist() == ["anna"] * 3 + ["cleo"] * 2
    np.testing.assert_array_equal(some.images[3:], data.images[10:])
    np.testing.assert_array_equal(some.masks[3:], data.masks[10:])
    assert some.licence == data.licence
    assert len(data.only(set())) == 0


@pytest.mark.parametrize("size", [32, 64, 128])
def test_slices_of_another_size(data: LabelledSlices, size: int) -> None:
    """Every mask still lies on its grey values, and nothing else changes."""
    got = data.resized(size)
    assert (got.images.dtype, got.masks.dtype) == (np.uint8, np.bool_)
    assert got.images.shape == (12, size, size)
    assert got.masks.shape == (12, 2, size, size)
    assert got.masks.mean() == pytest.approx(data.masks.mean(), rel=0.1)
    lungs = got.masks[:, 0] & ~got.masks[:, 1]
    assert got.images[lungs].mean() == pytest.approx(
        data.images[data.masks[:, 0] & ~data.masks[:, 1]].mean(), abs=5
    )
    assert (got.patients == data.patients).all() and got.licence == data.licence
    assert len(data.only(set()).resized(size)) == 0


def test_the_checksum_sees_every_change(data: LabelledSlices) -> None:
    everyone = {"anna", "bert", "cleo"}
    copies = [data.only(everyone) for _ in range(4)]
    copies[1].images[3, 5, 5] ^= 1
    copies[2].masks[3, 1, 5, 5] ^= True
    copies[3].patients[0] = "bert"
    assert copies[0].checksum() == data.checksum()
    assert len({copy.checksum() for copy in [*copies, data.only({"bert"})]}) == 5
    assert dataclasses.replace(data, weights={"bert": 2.0}).checksum() != data.checksum()
