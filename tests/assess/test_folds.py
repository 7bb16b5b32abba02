"""Who is on which side: patients never on two, and where slices are divided, every slice on one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_covseg.assess.folds import make_folds
from napari_covseg.errors import ModelError
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices

HEALTHY, NECK = "healthy", "neck"


def made(counts: dict[str, int], **options: object) -> LabelledSlices:
    """Slices of ill patients, with two sources that nobody tests."""
    names = [name for name, count in {**counts, HEALTHY: 2, NECK: 1}.items() for _ in range(count)]
    masks = np.zeros((len(names), 2, 4, 4), bool)
    masks[[name not in (HEALTHY, NECK) for name in names], 1, 0, 0] = True
    images = np.arange(len(names), dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    return LabelledSlices(
        images,
        masks,
        np.array(names),
        negatives=frozenset({NECK}),
        weights={HEALTHY: 2.5, "anna": 2.0},
        **options,  # type: ignore[arg-type]
    )


NAMED = made(
    {"anna": 4, "bert": 3, "cleo": 5},
    folds={"1": ["anna"], "2": ["bert", "cleo"]},
    validation={"1": ["bert"], "2": ["anna"]},
)
PEOPLE = st.sampled_from(["anna", "bert", "cleo", "dora", "emil", "fay"])


def test_the_folds_of_the_data() -> None:
    first, second = make_folds(NAMED)
    assert first.split == {"training": ["cleo", HEALTHY, NECK], "validation": ["bert"], "test": ["anna"]}
    assert second.split["test"] == ["bert", "cleo"]
    assert first.rows("test").tolist() == [0, 1, 2, 3]
    assert first.checksum != second.checksum
    assert first.checksum == make_folds(NAMED)[0].checksum


@given(st.dictionaries(PEOPLE, st.integers(1, 9)))
@settings(max_examples=50)
def test_dealt_patients_are_each_tested_once_and_never_on_two_sides(counts: dict[str, int]) -> None:
    data = made(counts)
    if len(counts) < 3:
        with pytest.raises(ModelError, match="at least 3"):
            make_folds(data)
        return
    folds = make_folds(data)
    assert sorted(name for fold in folds for name in fold.split["test"]) == sorted(counts)
    for fold in folds:
        parts = [set(fold.split[part]) for part in ("training", "validation", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(counts) + 2
        assert {HEALTHY, NECK} <= parts[0]
        assert len(parts[1]) == 1


@given(st.dictionaries(PEOPLE, st.integers(2, 9), min_size=3), st.integers(0, 3))
@settings(max_examples=50)
def test_slices_are_each_tested_once(counts: dict[str, int], seed: int) -> None:
    data = made(counts)
    folds = make_folds(data, "slice", seed=seed)
    ill = np.flatnonzero(~np.isin(data.patients, [HEALTHY, NECK]))
    assert sorted(row for fold in folds for row in fold.rows("test")) == ill.tolist()
    for fold in folds:
        rows = np.concatenate([fold.rows(part) for part in ("training", "validation", "test")])
        assert sorted(rows) == list(range(len(data)))
        assert {HEALTHY, NECK} <= set(fold.split["training"])
        for part in ("validation", "test"):
            assert len(fold.rows(part)) in (len(ill) // 5, len(ill) // 5 + 1)
        # what a name stands for: slices of one patient in one part
        for name in {name for names in fold.split.values() for name in names}:
            mine = fold.slices.patients == name
            assert len(set(fold.people[mine].tolist())) == 1
        assert np.array_equal(fold.slices.images, data.images)
        assert np.array_equal(fold.people, data.patients)


def test_slices_of_one_patient_lie_on_both_sides_and_weigh_as_before() -> None:
    folds = make_folds(NAMED, "slice")
    one = next(fold for fold in folds if "anna (test slices)" in fold.split["test"])
    assert "anna (training slices)" in one.split["training"]
    assert one.slices.weights["anna (training slices)"] == 2.0
    assert one.slices.weights[HEALTHY] == 2.5
    assert make_folds(NAMED, "slice")[0].checksum == folds[0].checksum
    assert make_folds(NAMED, "slice", seed=1)[0].checksum != folds[0].checksum


def test_folds_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "folds.toml"
    file.write_text('[folds]\na = ["cleo"]\nb = ["anna"]\n[validation]\na = ["anna"]\n')
    first, second = make_folds(NAMED, file=file)
    assert (first.name, first.split["test"], first.split["validation"]) == ("a", ["cleo"], ["anna"])
    assert second.split["validation"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("folds = 3", r"\[folds\] in .* is no table"),
        ("[folds]\n1 = 'anna'", "no table of lists"),
        ("[validation]\n1 = ['anna']", "has no table"),
        ("[folds", "not valid TOML"),
        ("[folds]\n1 = []", "Fold 1 tests nobody"),
        ("[folds]\n1 = ['zoe']", "no patient zoe"),
    ],
)
def test_files_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "folds.toml"
    file.write_text(text)
    with pytest.raises(ModelError, match=message):
        make_folds(NAMED, file=file)
    with pytest.raises(ModelError, match="cannot be read"):
        make_folds(NAMED, file=tmp_path / "other.toml")


def test_too_few_slices() -> None:
    data = made({"anna": 1, "bert": 1, "cleo": 1})
    with pytest.raises(ModelError, match="3 slices cannot be divided into 5"):
        make_folds(data, "slice")


def test_a_source_leaves_with_all_of_its_patients(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text('[leave_out]\n"two of them" = ["anna", "b*"]\nhealthy = ["h?althy"]\n')
    first, second = make_folds(NAMED, "source", file)
    assert (first.name, first.split["test"]) == ("two of them", ["anna", "bert"])
    assert first.split["training"] == ["cleo", HEALTHY, NECK]
    assert (second.split["test"], second.split["validation"]) == ([HEALTHY], [])
    assert first.rows("test").tolist() == list(range(7))
    file.write_text('[leave_out]\nfirst = ["anna"]\n[validation]\nfirst = ["bert"]\n1 = ["zoe"]\n')
    (only,) = make_folds(NAMED, "source", file)
    assert only.split == {"training": ["cleo", HEALTHY, NECK], "validation": ["bert"], "test": ["anna"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[folds]\n1 = ['anna']", r"has no table \[leave_out\]"),
        ("[leave_out]\na = ['zoe*']", "No patient of the data is called zoe"),
        ("[leave_out]\na = ['anna']\nb = ['a*']", "anna would be left out with two sources"),
        ("[leave_out]\n'a/b' = ['anna']", "cannot be the name of a file"),
        ("leave_out = ['anna']", "no table of lists"),
    ],
)
def test_sources_that_cannot_be_left_out(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text(text)
    with pytest.raises(ModelError, match=message):
        make_folds(NAMED, "source", file)
    with pytest.raises(ModelError, match=r"give a \.toml file with a table \[leave_out\]"):
        make_folds(NAMED, "source", tmp_path)


def test_whoever_has_a_finding_is_dealt_and_unknown_pixels_are_none() -> None:
    data = made({"anna": 2, "bert": 2, "cleo": 2, "dora": 2})
    masks = np.zeros((len(data), 3, 4, 4), np.uint8)
    masks[:, 1:] = UNKNOWN
    masks[np.isin(data.patients, ["anna", "bert", "cleo"]), 2, 0, 0] = 1
    several = replace(data, masks=masks, outputs=("lungs", "ground-glass", "pleural effusion"))
    assert sorted(name for fold in make_folds(several) for name in fold.split["test"]) == [
        "anna",
        "bert",
        "cleo",
    ]
