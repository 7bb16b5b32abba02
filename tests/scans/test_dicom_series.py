"""Which volumes a folder holds: volumes in one series, one volume in many, files that cannot be read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import ScanError
from napari_covseg.scans import list_series, read_scan
from napari_covseg.scans.dicom import header

N = 6


@pytest.fixture
def volumes(ct) -> list[np.ndarray]:
    return [ct((N, 12, 10), seed) for seed in (1, 2)]


def assert_both_offered(folder: Path, volumes: list[np.ndarray]) -> list[str]:
    """Each volume is listed and can be chosen, the first is read; return what they are called."""
    found = list_series(folder)
    assert [info.slices for info in found] == [N] * len(volumes)
    for info, volume in zip(found, volumes, strict=True):
        np.testing.assert_array_equal(read_scan(folder, series=info.uid).voxels, volume)
    default = read_scan(folder)
    assert default.series == found[0].uid and default.series_uid == default.series.partition("#")[0]
    np.testing.assert_array_equal(default.voxels, volumes[0])
    assert sum("Also in the folder" in note for note in default.notes) == len(volumes) - 1
    return [info.description for info in found]


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 40.0])  # 1.0: every second slice, as even as one volume
@pytest.mark.parametrize(
    "tag, values, said",
    [
        ("AcquisitionNumber", (1, 2), "acquisition 1"),
        ("TemporalPositionIdentifier", (1, 2), "temporal position 1"),
        ("EchoNumbers", (1, 2), "echo 1"),
        ("ConvolutionKernel", ("B31f", "B70f"), "kernel B31f"),
        ("KVP", (80, 140), "kV 80.0"),
        ("PatientID", ("P1", "P2"), "patient P1"),
        ("StudyInstanceUID", ("1.2.1", "1.2.2"), "study 1.2.1"),
    ],
)
def test_a_mark_tells_volumes_apart(tmp_path, make_series, volumes, tag, values, said, shift):
    for n, (volume, value) in enumerate(zip(volumes, values, strict=True)):
        names = [f"{z}{n}" for z in range(N)]
        make_series(tmp_path, volume, names=names, origin=(-30, -20, -100 + n * shift), **{tag: value})
    assert assert_both_offered(tmp_path, volumes)[0] == f"thorax ({said})"


@pytest.mark.parametrize(
    "tag, values",
    [
        ("AcquisitionTime", ("101010", "111111.5")),
        ("ContentTime", ("101010", "111111.5")),
        ("AcquisitionDateTime", ("20200101101010", "20200101111111")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL"])),
        ("FrameOfReferenceUID", ("1.2.1", "1.2.2")),
        ("SeriesDescription", ("arterial", "venous")),
        ("SliceThickness", (1, 5)),
        ("PixelSpacing", ([0.8, 0.7], [0.9, 0.9])),
    ],
)
def test_a_mark_tells_volumes_at_the_same_places_apart(tmp_path, make_series, volumes, tag, values):
    for n, (volume, value) in enumerate(zip(volumes, values, strict=True)):
        make_series(tmp_path, volume, names=[f"{z}{n}" for z in range(N)], **{tag: value})
    assert_both_offered(tmp_path, volumes)


@pytest.mark.parametrize("by", ["folder", "files", "number", "time", "names in order"])
def test_nothing_but_order_tells_volumes_apart(tmp_path, make_slice, volumes, by):
    for n, volume in enumerate(volumes):
        for z, values in enumerate(volume):
            at = n * N + z
            path, tags = f"x{z}{n}", {}
            if by == "folder":
                path = f"{'ab'[n]}/IM{z}"
            elif by == "files":
                path = f"{'ab'[n]}_{z}"
            elif by == "number":
                tags = {"InstanceNumber": at + 1}
            elif by == "time":
                tags = {"AcquisitionTime": f"1010{at:02d}"}
            else:
                path = f"IM{at}"
            make_slice(tmp_path / path, values, position=(0, 0, 2 * z), **tags)
    said = assert_both_offered(tmp_path, volumes)
    if by == "folder":
        assert said == ["thorax (folder a)", "thorax (folder b)"]


def test_of_two_volumes_one_may_lack_a_slice(tmp_path, make_series, volumes):
    make_series(tmp_path, volumes[0], names=[f"a{z}" for z in range(N)], AcquisitionNumber=1)
    make_series(tmp_path, volumes[1], names=[f"b{z}" for z in range(N)], AcquisitionNumber=2)
    (tmp_path / "b3").unlink()
    assert [info.slices for info in list_series(tmp_path)] == [N, N - 1]
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, volumes[0])
    with pytest.raises(
        ScanError, match=r"gap: b2 and b4 .*; or choose another series: 'thorax \(acquisition 1"
    ):
        read_scan(tmp_path, series=list_series(tmp_path)[1].uid)


def test_headers_are_read_once(tmp_path, make_series, monkeypatch):
    make_series(tmp_path)
    read = []
    whole = header.read_elements
    monkeypatch.setattr(
        header, "read_elements", lambda path, *rest: read.append(path.name) or whole(path, *rest)
    )
    found = list_series(tmp_path)
    read_scan(tmp_path, found=found)
    assert sorted(read) == [f"IM{z:04d}.dcm" for z in range(5)]


def test_two_planes_in_one_series(tmp_path, make_series, volumes):
    coronal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "step": (0, 2, 0)}
    make_series(tmp_path / "b", volumes[1], **coronal)
    make_series(tmp_path / "a", volumes[0])
    assert [(info.plane, info.slices) for info in list_series(tmp_path)] == [("axial", N), ("coronal", N)]
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, volumes[0])


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "AcquisitionTime"])
def test_rotations_behind_each_other_are_one_volume(tmp_path, make_slice, ct, tag):
    volume = ct((8, 12, 10))
    for z, values in enumerate(volume):
        make_slice(tmp_path / f"{z}", values, position=(0, 0, 2 * z), **{tag: f"10100{z // 4}"})
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, volume)
    (tmp_path / "4").unlink()  # the gap lies between the rotations
    with pytest.raises(ScanError, match="gap: 3 and 5 lie 4"):
        read_scan(tmp_path)


def test_pictures_given_twice_under_two_names(tmp_path, make_series, make_slice, volumes):
    make_series(tmp_path, volumes[0])
    for name, z in {"again": 2, "other": 4}.items():
        dataset = pydicom.dcmread(tmp_path / f"IM{z:04d}.dcm")
        dataset.SOPInstanceUID = generate_uid()
        dataset.save_as(tmp_path / name)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, volumes[0])
    assert scan.notes == ("Left out 2 slice(s) whose pictures are copies of others.",)


def test_duplicates_name_their_folders(tmp_path, make_series, make_slice, ct):
    make_series(tmp_path / "a")
    make_slice(tmp_path / "b" / "IM0002.dcm", ct((12, 10), 99), position=(-30, -20, -96))
    with pytest.raises(ScanError, match=r"a/IM0002.dcm and b/IM0002.dcm lie at the same position"):
        read_scan(tmp_path)


def test_mixed_distances_are_said(tmp_path, make_slice):
    for n, z in enumerate([0, 1, 2, 3, 5, 7, 9, 11]):
        make_slice(tmp_path / f"{n}", position=(0, 0, z))
    with pytest.raises(ScanError, match=r"do not lie evenly: they are 1.00 to 2.00 mm apart"):
        read_scan(tmp_path)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("study", ["1.2.3.4", "1.2.3.5"])
def test_a_series_uid_for_each_slice(tmp_path, make_slice, ct, study, order):
    volume = ct((N, 12, 10))
    for z, values in enumerate(volume):
        make_slice(
            tmp_path / f"{z}",
            values,
            position=(0, 0, 2 * z * order),
            SeriesInstanceUID=f"1.9.{z}",
            SeriesNumber=z,
            StudyInstanceUID=study,
        )
    make_slice(
        tmp_path / "scout", position=(9, 9, 9), SeriesInstanceUID="1.8", ImageType=["A", "B", "LOCALIZER"]
    )
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, volume[::order])
    assert scan.notes[0] == f"{N} series of one slice each lie in one row: they are read as one scan."
    (tmp_path / "3").unlink()
    with pytest.raises(ScanError, match="gap: "):  # not: one slice of five
        read_scan(tmp_path)


@pytest.mark.parametrize("digits", [0, 1, 2])
@pytest.mark.parametrize("step", [0.625, 0.7, 1.25, 1.5, 2.5])
def test_rounded_positions_are_even(tmp_path, make_slice, ct, step, digits):
    volume = ct((13, 12, 10))
    for z, values in enumerate(volume):
        at = f"{-100 + step * z:.{digits}f}"
        make_slice(tmp_path / f"{z}", values, position=("1.25", "-3", at), InstanceNumber=13 - z)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, volume)
    assert scan.spacing[0] == pytest.approx(step, abs=10.0**-digits / 12)
    (tmp_path / "5").unlink()  # without a slice they are not
    with pytest.raises(ScanError, match=r"gap|same position|evenly"):
        read_scan(tmp_path)


def test_rounding_does_not_make_one_volume_of_two(tmp_path, make_slice, ct):
    for n in range(2):
        for z in range(5):
            make_slice(
                tmp_path / f"{n}{z}",
                position=("0", "0", f"{z}"),
                InstanceNumber=1 + z,
                ContentTime=f"10100{n}",
            )
    assert [info.slices for info in list_series(tmp_path)] == [5, 5]


def directory_record(path: Path, *, stated: bool = True) -> None:
    """Write a DICOMDIR; without `stated` only its records say so, not its meta group."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10" if stated else "1.2.3"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    record = pydicom.Dataset()
    record.DirectoryRecordType = "STUDY"
    record.Modality = "CT"
    dataset.DirectoryRecordSequence = [record]
    pydicom.dcmwrite(path, dataset)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("name", ["DICOMDIR.dcm", "DIRFILE", "IM0005.dcm"])
def test_a_directory_record_under_any_name(tmp_path, make_series, name, stated):
    make_series(tmp_path)
    directory_record(tmp_path / name, stated=stated)
    scan = read_scan(tmp_path)
    assert len(scan.voxels) == 5 and scan.notes == ()
    with pytest.raises(ScanError, match=rf"{name} is a directory of DICOM files .*choose the folder"):
        read_scan(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"<html>" + b"x" * 300, b"\0" * 128 + b"DICM"])
@pytest.mark.parametrize("name", ["IM0005.dcm", "IM0002.dcm"])
def test_a_file_named_as_a_slice_is_missed(tmp_path, make_series, name, content):
    make_series(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=rf"{name} is .*copy it again"):
        read_scan(tmp_path)
    make_series(tmp_path, SeriesInstanceUID="1.7", names=[f"other{n}" for n in range(5)])
    assert len(read_scan(tmp_path, series="1.7").voxels) == 5


@pytest.mark.parametrize("content", [b"", b"<html>" + b"x" * 300, b"\0" * 128 + b"DICM"])
def test_a_broken_file_of_no_series_is_a_note(tmp_path, make_series, content):
    make_series(tmp_path)
    (tmp_path / "index.dcm").write_bytes(content)
    (tmp_path / "readme.txt").write_bytes(content[:10])
    scan = read_scan(tmp_path)
    assert len(scan.voxels) == 5
    assert len(scan.notes) == 1
    assert "Left out: index.dcm is" in scan.notes[0]


def test_an_empty_file_without_suffix_among_slices(tmp_path, make_series):
    make_series(tmp_path, names=[f"I{n:07d}" for n in range(5)])
    (tmp_path / "I0000005").touch()
    with pytest.raises(ScanError, match="I0000005 is empty or truncated, and it is named as a slice"):
        read_scan(tmp_path)
    (tmp_path / "I0000005").rename(tmp_path / "A7F")
    assert "Left out: A7F is empty or truncated" in read_scan(tmp_path).notes[0]


def test_a_cut_file_refuses_its_own_series_only(tmp_path, make_series):
    make_series(tmp_path / "a", SeriesInstanceUID="1.1")
    make_series(tmp_path / "b", SeriesInstanceUID="1.2", names=[f"B{n}" for n in range(5)])
    path = tmp_path / "b" / "B4"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert len(read_scan(tmp_path, series="1.1").voxels) == 5
    with pytest.raises(ScanError, match="B4 is truncated or damaged"):
        read_scan(tmp_path, series="1.2")


def test_links_to_folders_are_followed_once(tmp_path, make_series):
    make_series(tmp_path / "elsewhere")
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (chosen / "again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "loop").symlink_to(chosen, target_is_directory=True)
    scan = read_scan(chosen)
    assert len(scan.voxels) == 5 and scan.notes == ()


@pytest.mark.parametrize("name", ["IM0005.dcm", "other.dcm"])
def test_a_file_without_permission_is_said(tmp_path, make_series, monkeypatch, name):
    make_series(tmp_path)
    shutil.copy(tmp_path / "IM0000.dcm", tmp_path / name)
    real = Path.open

    def refuse(self, *args, **kwargs):
        if self.name == name:
            raise PermissionError(13, os.strerror(13), str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)  # whoever runs the tests as root may read everything
    with pytest.raises(ScanError, match=rf"{name} cannot be read \(Permission denied\); check"):
        read_scan(tmp_path / name)
    if name == "IM0005.dcm":
        with pytest.raises(ScanError, match=rf"{name} cannot be read \(Permission denied\)"):
            read_scan(tmp_path)
    else:
        assert read_scan(tmp_path).notes == (f"Left out: {name} cannot be read (Permission denied).",)


def test_a_folder_without_permission_is_said(tmp_path, make_series, monkeypatch):
    make_series(tmp_path)
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, os.strerror(13), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert read_scan(tmp_path).notes == ("Left out: closed cannot be read (Permission denied).",)
    monkeypatch.setattr(Path, "is_dir", lambda self: refuse(f"{self}/closed"))
    with pytest.raises(ScanError, match=r"cannot be read \(Permission denied\); check the disk"):
        list_series(tmp_path)


SCOUT = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
CORONAL = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}


@pytest.mark.parametrize("tags", [SCOUT, CORONAL, SCOUT | CORONAL])
def test_a_lone_scout_is_no_scan(tmp_path, make_slice, tags):
    path = make_slice(tmp_path / "a" / "scout.dcm", **tags)
    for asked in (path, path.parent):
        with pytest.raises(ScanError, match=rf"{asked.name} is not a CT scan: .* is a scout image"):
            read_scan(asked)


def test_a_broken_file_does_not_stop_other_kinds(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16) + np.arange(5)), tmp_path / "a.nii")
    (tmp_path / "x.dcm").touch()
    assert read_scan(tmp_path).voxels.shape == (3, 4, 5)
    assert list_series(tmp_path) == []
    (tmp_path / "a.nii").unlink()
    with pytest.raises(ScanError, match=r"x.dcm is empty or truncated; copy it again .*, or remove it"):
        read_scan(tmp_path)


def test_archives_are_refused(tmp_path, make_series):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "b").write_bytes(b"PK\x03\x04 under another name")
    for asked in ("a.zip", "b", "."):
        with pytest.raises(ScanError, match="is an archive, not a scan; unpack it"):
            read_scan(tmp_path / asked)
    make_series(tmp_path)
    assert len(read_scan(tmp_path).voxels) == 5


def test_what_is_in_a_workspace_says_how_to_open_it(tmp_path, make_series):
    workspace = Workspace.open(tmp_path / "ws.zarr")
    case = workspace.add_case(read_scan(make_series(tmp_path / "dicom")))
    place = tmp_path / "ws.zarr"
    with pytest.raises(ScanError, match=r"ws.zarr belongs to the workspace ws.zarr.*covseg open --workspace"):
        read_scan(place)
    for asked in (place / "cases" / case, place / "cases" / case / "0"):
        with pytest.raises(ScanError, match=rf"belongs to the case {case} .*covseg open {case} --workspace"):
            read_scan(asked)
    shutil.move(place / "cases" / case, tmp_path / "alone")
    with pytest.raises(ScanError, match="alone is a case that was taken out of its workspace"):
        read_scan(tmp_path / "alone")
