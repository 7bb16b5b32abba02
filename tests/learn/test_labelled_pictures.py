"""Tables of labelled pictures: classes, patients, sites and licences, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_covseg.errors import ScanError
from napari_covseg.labels import OTHER
from napari_covseg.learn.labelled_pictures import divided, read_labelled_pictures
from napari_covseg.learn.training_set import read_training_set

ROWS = (
    # file, label, patient, website, license, note
    ("covid/1.png", "covid", "anna", "sirm.org", "CC BY", ""),
    ("covid/2.png", "covid", "bert", "", "", ""),
    ("covid/3.png", "covid", "eve", "sirm.org", "CC BY-NC-ND", "suspected only: no test"),
    ("normal/7.png", "normal", "", "", "", ""),
    ("normal/12.png", "normal", "", "", "", ""),
    ("other/4.png", "fungus", "anna", "sirm.org", "CC BY-SA", ""),
    ("other/5.png", "unclear", "frank", "", "", ""),
)
SOURCE = """
name = "two hospitals"
labels = "set/labels.csv"
licence = "CC0"
licence_of = "license"
modality = "X-ray"
class = "label"
classes = { covid = "COVID-19", normal = "normal", fungus = "not COVID-19" }
patient = "patient"
block = 10
site = "website"
left_out = [{ license = "*ND*", note = "suspected*" }]
"""


def described(tmp_path: Path, source: str = SOURCE, top: str = "folds = 2\nlicence = 'ours'\n") -> Path:
    for number, row in enumerate(ROWS):
        file = tmp_path / "set" / row[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40 + number, 50), 10 * number, np.uint8)).save(file)
    lines = [",".join(row) for row in (("file", "label", "patient", "website", "license", "note"), *ROWS)]
    (tmp_path / "set" / "labels.csv").write_text("\n".join(lines) + "\n")
    path = tmp_path / "pictures.toml"
    path.write_text(f"{top}[[source]]{source}")
    return path


def test_a_table_says_what_pictures_show_and_whose_they_are(tmp_path: Path) -> None:
    found = read_labelled_pictures(described(tmp_path))
    assert found.classes.tolist() == ["COVID-19", "COVID-19", "normal", "normal", OTHER]
    assert found.patients.tolist() == ["anna", "bert", "normal block 0", "normal block 1", "anna"]
    two = "two hospitals"
    assert found.sites.tolist() == ["sirm.org", two, two, two, "sirm.org"]
    assert [picture.shape for picture in found.pictures] == [(40, 50), (41, 50), (43, 50), (44, 50), (45, 50)]
    assert found.pictures[2][0, 0] == 30
    assert set(found.modalities) == {"X-ray"}
    assert found.licences == {two: "CC BY, CC BY-SA, CC0"} and found.licence == "ours"
    assert sorted(found.folds["1"] + found.folds["2"]) == sorted(set(found.patients))
    assert found.validation == {"1": found.folds["2"], "2": found.folds["1"]}


def test_classes_that_a_network_has_no_output_for_are_left_out_or_the_others(tmp_path: Path) -> None:
    found = read_labelled_pictures(described(tmp_path))
    assert found.of_classes(("COVID-19", "normal")).patients.tolist() == found.patients.tolist()[:4]
    against = found.of_classes(("COVID-19", OTHER))
    assert against.numbers(("COVID-19", OTHER)).tolist() == [0, 0, 1, 1, 1]
    assert found.of_classes((OTHER, "COVID-19")).numbers((OTHER, "COVID-19")).tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('license = "*ND*", note', "note", None),
        ("left_out = [", "left_out = [] #", r"covid/3\.png has a licence that allows no derivatives"),
        ("block = 10", "", r"normal/7\.png has no patient: "),
        ('site = "website"', 'site = "web"', r"labels\.csv has no column web\."),
        ('note = "suspected*"', 'ward = "x"', r"labels\.csv has no column ward\."),
        ('modality = "X-ray"', 'modality = "MR"', "needs a modality: X-ray or CT"),
        ('"not COVID-19"', '"fungus"', "needs classes, what its labels mean: .*; fungus is none"),
        ("block = 10", 'block = "ten"', "has a setting that cannot be used: block"),
        ("block = 10", "weight = 10", "has a setting that it cannot have, weight"),
        ("set/labels.csv", "set/label.csv", r"label\.csv cannot be read"),
        ("labels = ", "pictures = ", "labelled slices are for segmentation"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, told: str | None) -> None:
    assert old in SOURCE
    path = described(tmp_path, SOURCE.replace(old, new))
    if told is None:
        assert len(read_labelled_pictures(path)) == 5
        return
    with pytest.raises(ScanError, match=told):
        read_labelled_pictures(path)


def test_slices_and_pictures_are_not_taken_for_each_other(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="train on it with --task recognition"):
        read_training_set(described(tmp_path))
    with pytest.raises(ScanError, match=r"is no \.toml description of labelled pictures"):
        read_labelled_pictures(tmp_path)


def test_every_fold_has_patients_of_every_class() -> None:
    patients = np.array([f"patient {n // 2}" for n in range(60)])
    classes = np.where(np.arange(60) < 40, "COVID-19", "normal")
    folds = divided(patients, classes, 5)
    assert [len(names) for names in folds.values()] == [6] * 5
    of = dict(zip(patients.tolist(), classes.tolist(), strict=True))
    assert all([of[name] for name in names].count("normal") == 2 for names in folds.values())
    assert divided(patients[::-1], classes[::-1], 5) == folds
    with pytest.raises(ScanError, match="30 patients cannot be divided into 31 folds"):
        divided(patients, classes, 31)
