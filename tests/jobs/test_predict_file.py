from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from napari_covseg.errors import ScanError
from napari_covseg.jobs.predict_file import check_output
from napari_covseg.scans import LABEL_SUFFIXES


@pytest.mark.parametrize("suffix", [*LABEL_SUFFIXES, ".NII.GZ"])
def test_a_good_name_is_taken_and_nothing_is_left(tmp_path: Path, suffix: str) -> None:
    check_output(tmp_path / f"labels{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("labels.png", "end in"), ("missing/labels.nii.gz", "does not exist"), ("folder.nii.gz", "is a folder")],
)
def test_bad_names_are_refused(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(ScanError, match=sentence):
        check_output(tmp_path / name)


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch) -> None:
    def refuse(**arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ScanError, match="Permission denied"):
        check_output(tmp_path / "labels.nii.gz")
