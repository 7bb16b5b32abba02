"""X-rays in DICOM: each opens as one slice with all its values, in the window and polarity of its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEGLosslessSV1
from xrays import CR, PROCESSING, chest, table, write_xray

from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import ScanError
from napari_covseg.scans import Scan, list_series, read_scan
from napari_covseg.scans.stated import look_at

CURVE = np.rint(1023 * (np.arange(4096) / 4095) ** 2).astype(np.uint16)


def on_screen(scan: Scan) -> np.ndarray:
    """What is seen, from 0 (black) to 1."""
    low, high = scan.window
    return np.clip((scan.voxels[0] - low) / (high - low), 0, 1)


def by_pydicom(path: Path, top: float) -> np.ndarray:
    """What pydicom makes of the file, from 0 (black) to 1 (`top`)."""
    dataset = pydicom.dcmread(path)
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset, prefer_lut=False) / top
    return 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("white", ["", "MONOCHROME1", "INVERSE", "both"])
def test_all_bits_are_kept_and_air_is_black(tmp_path, bits, white):
    stored = chest(bits)
    turned = {} if white in ("", "INVERSE") else {"PhotometricInterpretation": "MONOCHROME1"}
    if white in ("INVERSE", "both"):
        turned["PresentationLUTShape"] = "INVERSE"
    path = write_xray(tmp_path / "x.dcm", 2**bits - 1 - stored if white else stored, bits=bits, **turned)
    scan = read_scan(path)
    assert scan.voxels.dtype == (np.uint16 if bits == 16 else np.int16)
    np.testing.assert_array_equal(scan.voxels[0], stored)
    assert (scan.intensity, scan.spacing, scan.name, scan.notes) == ("grey", None, "x", ())
    assert any("air is black" in fact for fact in scan.facts) == bool(white)
    case = Workspace.open(tmp_path / "w.zarr")
    case = case.case(case.add_case(scan))
    np.testing.assert_array_equal(case.scan().voxels[0], stored)  # as it is kept
    assert case.scan().header() == scan.header()
    assert case.appearance.kind == "chest X-ray" and not case.appearance.inverted


WINDOW = {"WindowCenter": 1800, "WindowWidth": 2200}


@pytest.mark.parametrize("monochrome", [1, 2])
@pytest.mark.parametrize(
    "tags, top, kept, fact",
    [
        (WINDOW, 4095, True, "file's window (centre 1800, width 2200)"),
        (WINDOW | {"VOILUTFunction": "LINEAR_EXACT"}, 4095, True, "file's window"),
        ({"WindowCenter": [1800, 900], "WindowWidth": [2200, 300]}, 4095, True, "file's window (centre 1800"),
        (WINDOW | {"VOILUTFunction": "SIGMOID"}, 4095, False, "sigmoid"),
        ({"VOILUTSequence": [table(CURVE, bits=10)]}, 1023, False, "VOI LUT of 10 bits"),
        (WINDOW | {"VOILUTSequence": [table(CURVE, bits=10)]}, 4095, True, "file's window"),
        (WINDOW | {"ModalityLUTSequence": [table(CURVE * 4)]}, 65535, False, "Modality LUT of 16 bits"),
        (
            {"WindowCenter": 2, "WindowWidth": 3, "RescaleSlope": "0.001", "RescaleIntercept": 0},
            4.095, False, "spread over 0 to 65535",
        ),
    ],
)  # fmt: skip
def test_it_is_shown_as_pydicom_shows_it(tmp_path, tags, top, kept, fact, monochrome):
    path = write_xray(tmp_path / "x.dcm", PhotometricInterpretation=f"MONOCHROME{monochrome}", **tags)
    scan = read_scan(path)
    shown = on_screen(scan)
    np.testing.assert_allclose(shown, by_pydicom(path, top), atol=1e-4)
    assert any(fact in one for one in scan.facts)
    if kept:
        np.testing.assert_array_equal(scan.voxels[0], chest() if monochrome == 2 else 4095 - chest())


@pytest.mark.parametrize("slope, intercept", [(2, -1000), (-1, 4095), (-16, 100)])
def test_a_rescale_comes_before_the_window(tmp_path, slope, intercept):
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept, "VOILUTFunction": "LINEAR_EXACT"}
    ends = 1000 * slope + intercept, 3000 * slope + intercept
    tags |= {"WindowCenter": sum(ends) / 2, "WindowWidth": abs(ends[1] - ends[0])}
    shown = on_screen(read_scan(write_xray(tmp_path / "x.dcm", **tags)))
    expected = np.clip((chest().astype(float) - 1000) / 2000, 0, 1)
    np.testing.assert_allclose(shown, expected if slope > 0 else 1 - expected, atol=1e-4)


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_of_8_bits(tmp_path, sequence):
    item = table(CURVE >> 2, bits=8)
    packed = table(CURVE >> 2, bits=8)
    packed["LUTData"].value = (CURVE >> 2).astype(np.uint8).tobytes()
    for n, one in enumerate((item, packed)):
        scan = read_scan(write_xray(tmp_path / f"{n}.dcm", **{sequence: [one]}))
        np.testing.assert_array_equal(scan.voxels[0], (CURVE >> 2)[chest()])


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": 1e5, "WindowWidth": 10},
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": "", "WindowWidth": ""},
    ],
)
def test_without_a_window_that_shows_it_nearly_all_values_are_shown(tmp_path, tags):
    scan = read_scan(write_xray(tmp_path / "x.dcm", **tags))
    low, high = scan.window
    assert 0.97 < np.mean((scan.voxels >= low) & (scan.voxels <= high)) < 1
    assert any("names no window" in fact for fact in scan.facts)


@pytest.mark.parametrize("monochrome", [1, 2])
def test_padding_is_black_and_does_not_count(tmp_path, monochrome):
    stored = chest() // 2 + 100
    meant = 4095 - stored if monochrome == 1 else stored
    stored[:, :20] = 4095
    tags = {"PhotometricInterpretation": f"MONOCHROME{monochrome}", "PixelPaddingValue": 4095}
    scan = read_scan(write_xray(tmp_path / "x.dcm", stored, **tags))
    np.testing.assert_array_equal(scan.voxels[0, :, 20:], meant[:, 20:])
    assert (scan.voxels[0, :, :20] == meant[:, 20:].min()).all()
    assert scan.window[1] <= meant[:, 20:].max()


def test_signed_values_and_compressed_ones(tmp_path, make_slice):
    signed = chest().astype(np.int16) - 2048
    scan = read_scan(write_xray(tmp_path / "s.dcm", signed, PixelRepresentation=1))
    np.testing.assert_array_equal(scan.voxels[0], signed)
    hu = chest().astype(np.int16) - 1024
    tags = {
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "PixelRepresentation": 0,
        "Modality": "CR",
        "SOPClassUID": CR,
    }
    scan = read_scan(make_slice(tmp_path / "c.dcm", hu, syntax=JPEGLosslessSV1, **tags))
    np.testing.assert_array_equal(scan.voxels[0], chest())


@pytest.mark.parametrize(
    "tags, size, affine, said",
    [
        ({}, "0.14 mm at the detector", 0.14, "view PA"),
        ({"PixelSpacing": [0.12, 0.12]}, "0.12 mm in the patient", 0.12, ""),
        ({"PixelSpacing": [0.14, 0.14]}, "0.14 mm at the detector", 0.14, ""),
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": None}, "0.1 × 0.2 mm (PixelSpacing", 0.1, ""),
        ({"ImagerPixelSpacing": [0, 0]}, "its pixels is unknown", 1.0, "right lies the patient's left"),
        ({"ViewPosition": None, "PatientOrientation": None}, "0.14", 0.14, "view not stated"),
    ],
)  # fmt: skip
def test_its_facts(tmp_path, tags, size, affine, said):
    scan = read_scan(write_xray(tmp_path / "x.dcm", **tags))
    assert any(size in fact for fact in scan.facts) and any(said in fact for fact in scan.facts)
    assert scan.facts[0].startswith("Chest X-ray (DX), view ")
    assert scan.affine[0, 2] == affine and scan.spacing is None
    assert "Secret" not in json.dumps(scan.header())


@pytest.mark.parametrize(
    "tags, kind, note",
    [
        ({}, "chest X-ray", ""),
        ({"Modality": "CR", "SOPClassUID": CR}, "chest X-ray", ""),
        ({"Modality": None}, "chest X-ray", ""),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "CR"}, "chest X-ray", ""),
        ({"ViewPosition": "LL"}, "chest X-ray", "is a lateral view (LL)"),
        ({"BodyPartExamined": "HAND"}, "X-ray", "shows HAND, not the chest"),
        ({"BodyPartExamined": None}, "chest X-ray", ""),  # by its pixels
        ({"PresentationIntentType": "FOR PROCESSING"}, "chest X-ray", "raw values"),
    ],
)  # fmt: skip
def test_it_is_named_as_what_it_is(tmp_path, tags, kind, note):
    scan = read_scan(write_xray(tmp_path / "x.dcm", **tags))
    found = look_at(scan)
    assert found.kind == kind and "X-ray" in found.refusal("x")
    assert (len(scan.notes), note in "".join(scan.notes)) == (bool(note), True)


@pytest.mark.parametrize("values", ["HU", "HU+1024"])
def test_its_values_are_no_hu(tmp_path, values):
    path = write_xray(tmp_path / "x.dcm")
    assert read_scan(path, values="grey").intensity == "grey"
    with pytest.raises(ScanError, match=r"x\.dcm is an X-ray, whose values are grey and never HU"):
        read_scan(path, values=values)


def test_noise_without_a_body_part_is_no_chest(tmp_path):
    noise = np.random.default_rng(0).integers(0, 4096, (128, 128)).astype(np.uint16)
    found = look_at(read_scan(write_xray(tmp_path / "x.dcm", noise, BodyPartExamined=None)))
    assert found.kind == "X-ray" and "not known to show a chest" in found.sentences()[0]


def test_codes_say_body_part_and_view(tmp_path):
    view, region = pydicom.Dataset(), pydicom.Dataset()
    view.CodeMeaning, region.CodeMeaning = "left lateral", "Chest"
    tags = {"ViewCodeSequence": [view], "AnatomicRegionSequence": [region]}
    path = write_xray(tmp_path / "x.dcm", BodyPartExamined=None, ViewPosition=None, **tags)
    scan = read_scan(path)
    assert scan.facts[0] == "Chest X-ray (DX), view left lateral." and "lateral view" in scan.notes[0]


def test_several_views_are_named_and_the_frontal_chest_is_chosen(tmp_path):
    folder = tmp_path / "study"
    write_xray(folder / "1.dcm", ViewPosition="LL")
    write_xray(folder / "2.dcm", SOPClassUID=PROCESSING, PresentationIntentType="FOR PROCESSING")
    front = write_xray(folder / "3.dcm", chest() // 2)
    write_xray(folder / "4.dcm", BodyPartExamined="KNEE", SeriesInstanceUID="1.2.9")
    found = list_series(folder)
    assert [info.headers[0].path.name for info in found] == ["3.dcm", "2.dcm", "1.dcm", "4.dcm"]
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.voxels, read_scan(front).voxels)
    assert scan.name == "study 3"
    assert [note for note in scan.notes if "DX X-ray, CHEST, LL, 1.dcm" in note]
    assert sum(note.startswith("Also in the folder") for note in scan.notes) == 3
    lateral = read_scan(folder, series=found[2].uid)
    assert lateral.series == found[2].uid and any("lateral" in note for note in lateral.notes)
    workspace = Workspace.open(tmp_path / "w.zarr")
    kept = workspace.add_case(scan)
    assert workspace.find_case(lateral) is None and workspace.find_case(read_scan(folder)) == kept


def test_frames_are_pictures_of_their_own(tmp_path):
    frames = np.stack([chest() // n for n in range(1, 21)])
    path = write_xray(
        tmp_path / "loop.dcm", frames, Modality="RF", SOPClassUID="1.2.840.10008.5.1.4.1.1.12.2"
    )
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.voxels, frames[:1])
    assert "RF X-ray, CHEST, PA, loop.dcm, frame 2 of 20" in scan.notes[0] and "12 more" not in scan.notes[0]
    assert scan.notes[-1] == "Also in the file: 11 more."
    np.testing.assert_array_equal(read_scan(path, series="1.2.3.4.5#7").voxels, frames[6:7])


def test_a_ct_beside_x_rays_is_what_is_read(tmp_path, make_series, ct):
    volume = ct((3, 12, 10))
    make_series(tmp_path, volume, SeriesInstanceUID="1.2.3.4.5")
    write_xray(tmp_path / "x.dcm")  # of the same series even
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, volume)
    assert "DX X-ray, CHEST, PA, x.dcm" in scan.notes[-1]
    (xray,) = [info for info in list_series(tmp_path) if info.is_xray]
    assert read_scan(tmp_path, series=xray.uid).voxels.shape == (1, 128, 128)


def test_pictures_of_x_rays_are_no_stack(tmp_path):
    for n in range(4):
        Image.fromarray(chest(8).astype(np.uint8)[n * 3 :]).save(tmp_path / f"patient{n}.png")
    scan = read_scan(tmp_path / "patient1.png")
    assert (scan.intensity, len(scan.voxels), look_at(scan).kind) == ("grey", 1, "chest X-ray")
    with pytest.raises(ScanError, match=r"holds 4 pictures that look like X-rays \(patient0\.png"):
        read_scan(tmp_path)


@pytest.mark.parametrize(
    "tags, said",
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "true colour image, not grey values"),
        ({"PixelData": bytes(2 * 128 * 128)}, "one value everywhere"),
        ({"PixelData": bytes(1000)}, "truncated or damaged"),
        ({"Rows": 0}, "truncated or damaged"),
        ({"NumberOfFrames": -3}, "truncated or damaged"),
        ({"NumberOfFrames": 9}, "truncated or damaged"),
        ({"VOILUTSequence": [pydicom.Dataset()]}, "truncated or damaged"),
        ({"ModalityLUTSequence": [table(CURVE, bits=40)]}, "truncated or damaged"),
        ({"Modality": "XX\nSecret^Name and much more"}, r"is XX SECRET\^NAME A, not CT"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The value length")
def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path, tags, said):
    path = write_xray(tmp_path / "x.dcm", **tags)
    with pytest.raises(ScanError, match=said) as refused:
        read_scan(path)
    assert "x.dcm" in str(refused.value)
