"""Pictures in: grey stacks in natural file-name order, and the sentence for what is refused."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_covseg.errors import ScanError
from napari_covseg.scans import read_scan
from napari_covseg.scans.pictures import natural_order


def grey(shape=(8, 9), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def test_natural_order():
    names = ["slice10.png", "slice2.png", "Slice1.png", "a.png", "2b.png", "10.png", "slice2a.png"]
    assert [path.name for path in sorted(map(Path, names), key=natural_order)] == [
        "2b.png", "10.png", "a.png", "Slice1.png", "slice2.png", "slice2a.png", "slice10.png",
    ]  # fmt: skip


def test_a_folder_is_a_stack(tmp_path):
    slices = {n: grey(seed=n) for n in (1, 2, 10, 11)}
    for n, array in slices.items():
        save(tmp_path / f"IM{n}.png", array)
    (tmp_path / "notes.txt").write_text("about these")
    (tmp_path / ".hidden.png").write_text("not for us")
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, np.stack(list(slices.values())))
    assert (scan.voxels.dtype, scan.intensity, scan.spacing) == (np.int16, "grey", None)
    assert scan.name == tmp_path.name
    assert scan.notes == (
        "Pictures have no known spacing: nothing is measured in ml, and exported labels carry 1 mm.",
    )
    np.testing.assert_array_equal(scan.affine @ [1, 2, 3, 1], [3, 2, 1, 1])


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_grey_pictures_stored_in_any_way(tmp_path, ending, mode):
    array = grey()
    Image.fromarray(array).convert(mode).save(tmp_path / f"x{ending}")
    np.testing.assert_array_equal(read_scan(tmp_path / f"x{ending}").voxels[0], array)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(tmp_path, mode):
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(ramp).convert(mode).save(tmp_path / "x.jpg", quality=95)
    assert np.abs(read_scan(tmp_path / "x.jpg").voxels[0] - ramp).max() <= 3


def test_a_coloured_arrow_is_no_true_colour(tmp_path):
    array = np.repeat(grey((64, 64))[..., None], 3, axis=2)
    array[10, 10:40] = (255, 0, 0)
    scan = read_scan(save(tmp_path / "x.png", array))
    np.testing.assert_array_equal(scan.voxels[0, 11:], array[11:, :, 0])


def test_16_bit_is_scaled_over_the_whole_stack(tmp_path):
    for n in range(3):
        save(tmp_path / f"{n}.png", np.full((4, 4), 1000 * (n + 1), np.uint16))
    scan = read_scan(tmp_path)
    assert scan.voxels[:, 0, 0].tolist() == [0, 128, 255]
    assert "Values 1000 to 3000 are not HU of a chest" in scan.notes[1]


def test_16_bit_that_holds_8_bit_is_kept(tmp_path):
    array = grey().astype(np.uint16)
    np.testing.assert_array_equal(read_scan(save(tmp_path / "x.png", array)).voxels[0], array)


def test_float_tiff_with_hu(tmp_path, ct):
    values = ct((8, 9)).astype(np.float32)
    scan = read_scan(save(tmp_path / "x.tif", values))
    np.testing.assert_array_equal(scan.voxels[0], values)
    assert (scan.intensity, scan.spacing) == ("HU", None)


def test_pages_of_a_tiff_are_slices(tmp_path):
    stack = grey((5, 8, 9))
    first, *others = [Image.fromarray(page) for page in stack]
    first.save(tmp_path / "x.tif", save_all=True, append_images=others)
    np.testing.assert_array_equal(read_scan(tmp_path / "x.tif").voxels, stack)


def test_true_colour(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    save(tmp_path / "b.png", grey())
    save(tmp_path / "a.png", colours)
    for asked in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(
            ScanError, match=r"a\.png is a true colour image, not a grey CT slice; save it without"
        ):
            read_scan(asked)


def test_mixed_sizes(tmp_path):
    save(tmp_path / "a.png", grey((8, 9)))
    save(tmp_path / "b.png", grey((8, 10)))
    with pytest.raises(
        ScanError, match=r"mixed sizes \(10 x 8 in b\.png and 9 x 8 before it\); keep slices of one"
    ):
        read_scan(tmp_path)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.6])
def test_truncated(tmp_path, ending, part):
    path = save(tmp_path / f"x{ending}", grey((64, 64)))
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(
        ScanError, match=r"x\.\w+ is (a truncated or|not a picture that can be read, or it is) damaged"
    ):
        read_scan(path)


def test_all_constant(tmp_path):
    with pytest.raises(
        ScanError, match=r"x\.png holds the value 5 everywhere, so there is no picture in it; choose"
    ):
        read_scan(save(tmp_path / "x.png", np.full((4, 4), 5, np.uint8)))
    with pytest.raises(ScanError, match=r"y\.png holds the value 500 everywhere"):
        read_scan(save(tmp_path / "y.png", np.full((4, 4), 500, np.uint16)))


def test_not_a_number(tmp_path):
    array = np.ones((4, 4), np.float32)
    array[1, 1] = np.nan
    with pytest.raises(
        ScanError, match=r"x\.tif holds values that are not numbers \(NaN or infinite\); save"
    ):
        read_scan(save(tmp_path / "x.tif", array))


def test_text_under_the_name_of_a_picture(tmp_path):
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(
        ScanError, match=r"x\.png is not a picture that can be read, or it is damaged; save it again"
    ):
        read_scan(tmp_path / "x.png")


def test_an_impossible_size_is_refused_before_it_is_decoded(tmp_path):
    data = bytearray(save(tmp_path / "x.png", grey()).read_bytes())
    data[16:24] = (9000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ScanError, match=r"x\.png claims 9000 x 9000 pixels, which no CT slice has"):
        read_scan(tmp_path / "x.png")
