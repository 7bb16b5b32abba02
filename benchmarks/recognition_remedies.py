"""Remedies against reading where a picture comes from, each measured, and the one that inner folds choose.

    python benchmarks/recognition_remedies.py ct [--features FOLDER]
    python benchmarks/recognition_remedies.py xrays [--features FOLDER]

CT: within each source by group, what sizes and scales of texture do. X-rays: COVID-19 against all else
within radiopaedia.org, by patient, taught on everything. *chosen on inner folds*: in each fold the
remedy with the best AUC in a division of those who teach, so that nobody who is tested has a say.
Figures go into `benchmarks/recognition/remedies-NAME.json`, which `docs/make_recognition.py` reads.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.files import write_text
from napari_covseg.labels import OTHER
from napari_covseg.learn.labelled_pictures import LabelledPictures, divided, read_labelled_pictures
from napari_covseg.learn.recipe import Recipe, read_recipe
from napari_covseg.learn.recognition import body_of, features_of, figures, probabilities_of, teach_last_layer
from napari_covseg.learn.training_set import grey_picture
from napari_covseg.metrics.recognition import auc
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.efficientnet import STAGES

HERE = Path(__file__).parent
OUTPUTS = ("COVID-19", OTHER)
EVERY = (2, 3, 4, 5, 6, 7)
INNER = 4
SITE = "radiopaedia.org"
LUNGS = (0.08, 0.05, 0.92, 0.85)
"""Where lungs lie if nobody has drawn their boxes: left, top, right, bottom, as shares of the sides."""
Rows = npt.NDArray[np.bool_]
Remedy = Callable[[Rows, Rows], npt.NDArray[np.float64]]
"""Probabilities of the rows of the second mask, taught on the first."""


def main() -> None:
    """Measure the remedies, print them and store them."""
    parser = argparse.ArgumentParser(description="Remedies against reading the source of a picture.")
    parser.add_argument("what", choices=("ct", "xrays"))
    parser.add_argument("--features", type=Path, help="folder where features are kept")
    arguments = parser.parse_args()
    recipe = read_recipe("covseg-recognition", "recognition")
    table = {"ct": "recognition_ct", "xrays": "recognition"}[arguments.what]
    data = read_labelled_pictures(HERE / f"{table}.toml").of_classes(OUTPUTS)
    kept = arguments.features
    told: list[dict[str, Any]] = []
    if arguments.what == "ct":
        remedies = dict(ct_remedies(data, recipe, kept))
        for source in sorted(set(data.sources.tolist())):
            told += measured(data, data.sources == source, data.sources == source, remedies, source)
    else:
        remedies = dict(xray_remedies(data, recipe, kept))
        told += measured(data, np.ones(len(data), bool), data.sites == SITE, remedies, SITE)
        # whether lungs were drawn goes with the class, so that nobody is compared with whom they were not
        drawn, remedies = drawn_remedies(data, recipe, kept)
        told += measured(data, drawn, drawn & (data.sites == SITE), remedies, f"{SITE}, lungs drawn")
    for one in told:
        auc_, accuracy = one["figures"]["auc"], one["figures"]["accuracy"]
        print(f"{one['within']}, {one['remedy']}: AUC {_text(auc_)}, accuracy {_text(accuracy)}")
    path = HERE / "recognition" / f"remedies-{arguments.what}.json"
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps({"told": told}, indent=1, ensure_ascii=False) + "\n")


def measured(
    data: LabelledPictures, taught: Rows, tested: Rows, remedies: dict[str, Remedy], within: str
) -> Iterator[dict[str, Any]]:
    """Yield the figures of each remedy on the rows that are tested, by patient, and of the chosen ones."""
    classes = data.numbers(OUTPUTS)
    sure = {name: np.full((len(data), 2), np.nan) for name in (*remedies, "chosen on inner folds")}
    chosen = []
    folds = divided(data.patients[tested], data.classes[tested], 5)
    for names in folds.values():
        out = np.isin(data.patients, names)
        learn, test = taught & ~out, tested & out
        for name, remedy in remedies.items():
            sure[name][test] = remedy(learn, test)
        inner = list(divided(data.patients[learn & tested], data.classes[learn & tested], INNER).values())
        scores = {
            name: _inner(data, remedy, learn, tested, inner, classes) for name, remedy in remedies.items()
        }
        chosen.append(max(scores, key=lambda name: scores[name]))
        sure["chosen on inner folds"][test] = sure[chosen[-1]][test]
    rows = tested & np.isfinite(sure["chosen on inner folds"][:, 0])
    for name, probability in sure.items():
        found = figures(classes[rows], probability[rows], data.patients[rows])
        yield {"within": within, "remedy": name, "figures": found} | (
            {"chosen": chosen} if name.startswith("chosen") else {}
        )


def _inner(
    data: LabelledPictures,
    remedy: Remedy,
    learn: Rows,
    tested: Rows,
    inner: list[list[str]],
    classes: npt.NDArray[np.int64],
) -> float:
    score = np.full(len(data), np.nan)
    for names in inner:
        out = np.isin(data.patients, names)
        score[learn & tested & out] = remedy(learn & ~out, learn & tested & out)[:, 0]
    rows = np.isfinite(score)
    return auc(classes[rows] == 0, score[rows])


def ct_remedies(data: LabelledPictures, recipe: Recipe, kept: Path | None) -> Iterator[tuple[str, Remedy]]:
    """Yield what larger pictures, other scales and a stronger penalty do."""
    for size in (224, 320):
        every = _features(data, recipe.at_size(size), kept, f"ct-{size}")
        for stages in ((7,), (3, 4, 5, 6, 7), (2, 3, 4, 5)):
            yield f"{size} pixels, scales {_range(stages)}", _linear(data, recipe, every, stages)
        strong = replace(recipe, weight_decay=2.0)
        yield f"{size} pixels, scales 2-5, penalty 2", _linear(data, strong, every, (2, 3, 4, 5))


def xray_remedies(data: LabelledPictures, recipe: Recipe, kept: Path | None) -> Iterator[tuple[str, Remedy]]:
    """Yield what hides the source, one by one."""
    stages = (3, 4, 5, 6, 7)
    whole = _features(data, recipe, kept, "xrays")
    yield "none", _linear(data, recipe, whole, stages)
    yield "taught within the website alone", _linear(data, recipe, whole, stages, data.sites == SITE)
    place = tuple(_masked(one, None) for one in data.pictures)
    lungs = _features(replace(data, pictures=place), recipe, kept, "xrays-place")
    yield "all but the usual place of the lungs black", _linear(data, recipe, lungs, stages)
    even = replace(data, pictures=tuple(cv2.equalizeHist(_small(one)) for one in data.pictures))
    yield (
        "one histogram for all websites",
        _linear(data, recipe, _features(even, recipe, kept, "xrays-even"), stages),
    )
    both = [s for s in set(data.sites.tolist()) if len(set(data.classes[data.sites == s].tolist())) > 1]
    yield (
        "only websites with both classes teach",
        _linear(data, recipe, whole, stages, np.isin(data.sites, both)),
    )
    yield "directions between websites projected out", _linear(data, recipe, whole, stages, project=True)
    yield (
        "all but the usual place of the lungs black, directions projected out",
        _linear(data, recipe, lungs, stages, project=True),
    )


def drawn_remedies(
    data: LabelledPictures, recipe: Recipe, kept: Path | None
) -> tuple[Rows, dict[str, Remedy]]:
    """Return whose lungs are drawn, and what it does to black out all else there."""
    pictures, drawn = lungs_only(data)
    whole = _features(data, recipe, kept, "xrays")
    lungs = _features(replace(data, pictures=pictures), recipe, kept, "xrays-lungs")
    named = {"none": whole, "all but the lungs black": lungs}
    return drawn, {name: _linear(data, recipe, one, (3, 4, 5, 6, 7)) for name, one in named.items()}


def lungs_only(data: LabelledPictures) -> tuple[tuple[npt.NDArray[np.uint8], ...], Rows]:
    """Return the pictures cropped to both lungs, black outside of each lung's box, and whose are drawn."""
    boxes: dict[Any, list[list[float]]] = {}
    folder = Path(os.environ["COVSEG_DATA"]) / "xrays"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            drawn = [row[f"{side}_lung_box"].split() for side in ("left", "right")]
            if all(len(one) == 4 for one in drawn):
                picture = grey_picture(folder / row["file"])
                boxes[picture.shape, picture.tobytes()[:4096]] = [[float(v) for v in one] for one in drawn]
    mine = [boxes.get((one.shape, one.tobytes()[:4096])) for one in data.pictures]
    pictures = tuple(_masked(one, box) for one, box in zip(data.pictures, mine, strict=True))
    return pictures, np.array([box is not None for box in mine])


def _masked(picture: npt.NDArray[np.uint8], boxes: list[list[float]] | None) -> npt.NDArray[np.uint8]:
    height, width = picture.shape
    if boxes is None:
        left, top, right, bottom = LUNGS
        middle = (left + right) / 2
        ends = [(left, top, middle, bottom), (middle, top, right, bottom)]
        corners = [(a * width, b * height, c * width, d * height) for a, b, c, d in ends]
    else:
        corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    out = np.zeros_like(picture)
    for x0, y0, x1, y1 in corners:
        part = np.s_[max(0, int(y0)) : int(y1) + 1, max(0, int(x0)) : int(x1) + 1]
        out[part] = picture[part]
    rows, columns = np.flatnonzero(out.any(1)), np.flatnonzero(out.any(0))
    return out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _small(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (384, 384), interpolation=cv2.INTER_AREA), np.uint8)


def _features(
    data: LabelledPictures, recipe: Recipe, kept: Path | None, name: str
) -> npt.NDArray[np.float32]:
    """Return the features of all scales."""
    path = None if kept is None else kept / f"{name}.npy"
    if path is not None and path.is_file():
        return np.asarray(np.load(path), np.float32)
    network = body_of(replace(recipe, settings={"stages": list(EVERY)}))
    found = features_of(network, data.prepared(Preparation.from_card(recipe.preparation)))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found)
    return found


def _linear(
    data: LabelledPictures,
    recipe: Recipe,
    every: npt.NDArray[np.float32],
    stages: tuple[int, ...],
    may_teach: Rows | None = None,
    *,
    project: bool = False,
) -> Remedy:
    """Return the last layer on some scales, taught on some rows."""
    widths = [2 * STAGES[stage - 1][0] for stage in EVERY]
    starts = dict(zip(EVERY, np.cumsum([0, *widths[:-1]]).tolist(), strict=True))
    columns = np.concatenate([np.arange(starts[s], starts[s] + 2 * STAGES[s - 1][0]) for s in stages])
    chosen, classes = every[:, columns], data.numbers(OUTPUTS)
    network = body_of(replace(recipe, settings={"stages": list(stages)}, pretrained=""))

    def remedy(learn: Rows, test: Rows) -> npt.NDArray[np.float64]:
        learn = learn if may_teach is None else learn & may_teach
        given = _without_directions(chosen, data, learn) if project else chosen
        for _ in teach_last_layer(recipe, network, given[learn], classes[learn], data.patients[learn]):
            pass
        return probabilities_of(network, given[test])

    return remedy


def _without_directions(
    features: npt.NDArray[np.float32], data: LabelledPictures, learn: Rows
) -> npt.NDArray[np.float32]:
    """Return features without what tells websites apart among pictures of one class that teach."""
    spread = features[learn].std(0) + 1e-3
    scaled = (features - features[learn].mean(0)) / spread
    directions = []
    for site in sorted(set(data.sites[learn].tolist())):
        for name in OUTPUTS:
            here = learn & (data.classes == name) & (data.sites == site)
            elsewhere = learn & (data.classes == name) & (data.sites != site)
            if here.sum() > 1 and elsewhere.sum() > 1:
                directions.append(scaled[here].mean(0) - scaled[elsewhere].mean(0))
    if not directions:
        return features
    basis, _ = np.linalg.qr(np.array(directions).T)
    return np.asarray(scaled - scaled @ basis @ basis.T, np.float32)


def _range(stages: tuple[int, ...]) -> str:
    return f"{stages[0]}-{stages[-1]}" if len(stages) > 1 else str(stages[0])


def _text(figure: list[float]) -> str:
    return "{:.3f} ({:.3f}-{:.3f})".format(*figure)


if __name__ == "__main__":
    main()
