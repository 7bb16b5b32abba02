"""How good a finished model is on real patients, by the way that the product labels them.

    COVSEG_DATA=... python benchmarks/evaluate.py MODEL [MODEL ...] [--against OTHER ...] [--on pictures,hu]

What is labelled, and what a person would have given to ``covseg predict``:

    pictures    the 50 pictures of covid_semiseg as they lie; the mean over the pictures, and by halves
    window      the lung-window pictures of five patients: their labelled slices, by patient, and what is
                painted on those that are taken to have no lesion
    equalised   the same slices as covid_png256 has them
    hu          the same pictures, whole series, turned into HU by a scale that is nearly right
    lidc        a chest in HU without COVID-19: painted share of the lungs that were found, its nodules
                excepted
    phantoms    phantoms of test seeds without findings: painted share of the lungs that were found

and, not by default,

    upright     the 50 pictures with the spine below, turned by a quarter
    png256      all 1,108 slices of all twelve patients of covid_png256

Overlap is pooled over a patient's slices (of ``pictures``, over a picture) and averaged; the interval is a
bootstrap of 95 % over patients (pictures). A patient without a label has no Dice of it. A figure is *blind*
if the card names none of its patients as one that the model learned from or chose its weights by; figures
of others stand in rows of their own, *taught*. Of several models (those of folds) each patient is given to
the first one that has not seen the patient.

Findings are kept to lungs that a model has found, never to those of the truth: the model itself or, for one
that crops to the lungs or finds none, the first of ``--lungs-from`` that has not seen the patient; if all of
them have, the figure is taught, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

import hu_rules
from napari_covseg.assess.comparison import interval
from napari_covseg.errors import ModelError, ScanError
from napari_covseg.labels import LESIONS, UNION
from napari_covseg.metrics.overlap import Counts, count, overlaps
from napari_covseg.models.catalogue import find
from napari_covseg.models.file import Model, load_model
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.volume import predict_volume
from napari_covseg.scans import read_scan
from napari_covseg.scans.appearance import Appearance, look
from napari_covseg.scans.pictures import Pictures, natural_order
from napari_covseg.scans.scan import Scan
from phantom_generator import phantom
from record import record as record_in_card

HERE = Path(__file__).parent
USUAL = ("pictures", "window", "equalised", "hu", "lidc", "phantoms")
SETS = (*USUAL, "upright", "png256")
SEMISEG = {1: "ground-glass", 2: "consolidation"}
HALF = 31  # the last number of half A
SEEDS = 20000
PHANTOM = (32, 256, 256), (10.0, 1.4, 1.4)
VALUES = {label.name: label.value for label in LESIONS}
INSIDE = [label.value for label in LESIONS if label.inside_lungs]
SEEN_AS = ("found", "plain", "equalised")
"""As the product finds; or as they lie, with nothing turned or put right: not yet equalised, or equalised."""
ORDER = ("lungs", UNION, "ground-glass", "consolidation", "pleural effusion")
FIGURES = {"dice": "Dice", "sensitivity": "sensitivity", "precision": "precision", "painted": "painted, %"}

Mask = npt.NDArray[np.bool_]
Key = tuple[str, str, str]
"""What is labelled, the label, the figure."""


@dataclass(frozen=True, eq=False)
class Part:
    """A scan with its truth.

    Attributes
    ----------
    scan : Scan
    truth : dict of str to ndarray of bool, shape (z, y, x)
        Of each label that is known.
    labelled, free : list of int
        Slices on which the truth is known, and those on which there is no finding.
    left_out : ndarray of bool, shape (z, y, x), optional
        Where what is painted counts neither as right nor as wrong.
    """

    scan: Scan
    truth: dict[str, Mask] = field(default_factory=dict)
    labelled: Sequence[int] = ()
    free: Sequence[int] = ()
    left_out: Mask | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """What one value of a figure comes from: a patient, or a picture.

    Attributes
    ----------
    sets : tuple of str
        Names of the rows that it counts in.
    unit, patient : str
        What the interval is over, and what the cards call the patient.
    parts : list of Part
    """

    sets: tuple[str, ...]
    unit: str
    patient: str
    parts: list[Part]


@dataclass
class Value:
    """A figure of one case, and whether the model that said it had been taught on the patient."""

    patient: str
    taught: bool
    value: float


Values = dict[Key, dict[str, Value]]
"""By row and by unit."""


def pictures(data: Path, *, upright: bool = False) -> Iterator[Case]:
    """Yield the pictures of covid_semiseg, whose spine is to the right, or below if they are turned."""
    name = "upright" if upright else "pictures"
    folder = data / "covid_semiseg"
    for file in sorted((folder / "images").iterdir(), key=natural_order):
        half = "A" if int("".join(filter(str.isdigit, file.stem))) <= HALF else "B"
        with Image.open((folder / "masks" / file.stem).with_suffix(".png")) as opened:
            stored = np.asarray(opened)[None]  # of a palette, the number is the label
        truth = {name: stored == value for value, name in SEMISEG.items()} | {UNION: stored > 0}
        scan = read_scan(file)
        if upright:
            truth = {label: np.rot90(mask, -1, (1, 2)) for label, mask in truth.items()}
            scan = replace(scan, voxels=np.ascontiguousarray(np.rot90(scan.voxels, -1, (1, 2))))
        yield Case((name, f"{name} {half}"), file.stem, f"covid_semiseg {half}", [Part(scan, truth, [0])])


def window(data: Path, *, in_hu: bool = False) -> Iterator[Case]:
    """Yield the patients of the lung-window pictures, as they are or in HU; a part for each series."""
    for folder in _patients(data / "radiopaedia_lungwindow"):
        rows = _slices(folder)
        parts = []
        for series in sorted({int(row["slice"]) // 1000 for row in rows}):
            mine = [row for row in rows if int(row["slice"]) // 1000 == series]
            if not in_hu:  # slices of pictures are labelled one by one
                mine = [row for row in mine if row["status"] != "unknown"]
            elif folder.name != "radiopaedia_h":  # numbers run from the head to the feet
                mine = mine[::-1]
            if mine:
                parts.append(_series(folder, mine, in_hu))
        yield Case(("hu" if in_hu else "window",), folder.name, folder.name, parts)


def _series(folder: Path, rows: list[dict[str, str]], in_hu: bool) -> Part:
    scan = Pictures().read_stack([folder / "ct" / f"{row['slice']}.jpg" for row in rows], folder / "ct")
    order = sorted(rows, key=lambda row: row["slice"])
    if in_hu:
        made = hu_rules.in_hu(folder.name, scan.voxels if rows == order else scan.voxels[::-1])
        scan, order = _scan(made.voxels, made.spacing, folder.name), rows
    known = [z for z, row in enumerate(order) if row["status"] == "lesion_mask"]
    free = [z for z, row in enumerate(order) if row["status"] == "no_lesion_inferred"]
    truth = {}
    for name, kept in (("lungs", "lungs"), (UNION, "infection")):
        truth[name] = np.zeros(scan.voxels.shape, np.bool_)
        for z in known:
            truth[name][z] = _mask(folder / kept / f"{order[z]['slice']}.png")
    return Part(scan, truth, known, free)


def equalised(data: Path, *, whole: bool = False) -> Iterator[Case]:
    """Yield the patients of covid_png256: the slices that `window` has too, or all of all twelve."""
    for folder in _patients(data / "covid_png256"):
        names = [file.stem for file in sorted((folder / "ct").iterdir())]
        pairs = data / "radiopaedia_lungwindow" / folder.name
        if not whole:
            there = {row["png256_slice"] for row in _slices(pairs)} if pairs.is_dir() else set()
            names = [name for name in names if name in there]
        if names:
            scan = Pictures().read_stack([folder / "ct" / f"{name}.png" for name in names], folder / "ct")
            truth = {
                label: np.stack([_mask(folder / kept / f"{name}.png") for name in names])
                for label, kept in (("lungs", "lungs"), (UNION, "infection"))
            }
            part = Part(scan, truth, range(len(names)))
            yield Case(("png256" if whole else "equalised",), folder.name, folder.name, [part])


def lidc(data: Path) -> Iterator[Case]:
    """Yield the chest without COVID-19."""
    scan = read_scan(data / "lidc_0001.nii.gz")
    part = Part(scan, free=range(len(scan.voxels)), left_out=hu_rules.around(scan))
    yield Case(("lidc",), "lidc_0001", "lidc_0001", [part])


def phantoms(count: int) -> Iterator[Case]:
    """Yield healthy phantoms of the test seeds."""
    for seed in range(SEEDS, SEEDS + count):
        made = phantom(seed, *PHANTOM, lesions=False)
        every = range(len(made.lungs))
        part = Part(made.scan, {"lungs": made.lungs > 0}, every, every)
        yield Case(("phantoms",), f"phantom {seed}", f"phantom {seed}", [part])


def cases(data: Path, name: str, phantom_count: int) -> Iterator[Case]:
    """Yield what is labelled under a name of `SETS`."""
    if name in ("pictures", "upright"):
        return pictures(data, upright=name == "upright")
    if name in ("window", "hu"):
        return window(data, in_hu=name == "hu")
    if name in ("equalised", "png256"):
        return equalised(data, whole=name == "png256")
    return lidc(data) if name == "lidc" else phantoms(phantom_count)


def _patients(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if (one / "ct").is_dir())


def _slices(folder: Path) -> list[dict[str, str]]:
    with (folder / "slices.csv").open(newline="") as lines:
        return sorted(csv.DictReader(lines), key=lambda row: row["slice"])


def _mask(file: Path) -> Mask:
    with Image.open(file) as opened:
        return np.asarray(opened) > 0


def _scan(voxels: npt.NDArray[np.int16], spacing: tuple[float, float, float] | None, name: str) -> Scan:
    assert spacing is not None
    z, y, x = voxels.shape
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], range(4)] = *spacing, 1.0
    return Scan(voxels, spacing, "HU", affine, (z, y, x), np.diag([*spacing[::-1], 1.0]), name=name)


class Models:
    """The models of which one labels each patient.

    Parameters
    ----------
    names : sequence of str
        Ids or files.
    device : str
    seen_as : str
        How pictures are taken, of `SEEN_AS`.
    levels : dict of str to float
        Thresholds that differ from the card's.
    lungs_from : sequence of str
        Models that find the lungs for those that crop to them or find none.

    Attributes
    ----------
    refused : set of str
        Units that the product does not take for a chest CT, and labels only when it is asked twice.
    """

    def __init__(
        self,
        names: Sequence[str],
        device: str,
        seen_as: str,
        levels: dict[str, float],
        lungs_from: Sequence[str] = (),
    ) -> None:
        self._models, self._finders = (
            [load_model(find(name).path, device) for name in some] for some in (names, lungs_from)
        )
        self._seen_as, self._levels = seen_as, levels
        self.refused: set[str] = set()

    @property
    def names(self) -> list[str]:
        """The ids of all."""
        return [model.card.id for model in self._models]

    def taught(self, patient: str) -> bool:
        """Whether all of them have seen a patient."""
        ensemble = self._for(patient)
        finder = ensemble.lungs_from
        return patient in _seen(ensemble.models[0]) or (finder is not None and patient in _seen(finder))

    def _for(self, patient: str) -> Ensemble:
        """Return the first model that has not seen a patient, with such a one for its lungs if needed."""
        model = _first_unseen(self._models, patient)
        needs = model.preparation.crop != "none" or "lungs" not in model.card.outputs
        return Ensemble(
            (model,), lungs_from=_first_unseen(self._finders, patient) if needs and self._finders else None
        )

    @property
    def lungs(self) -> str:
        """Whose lungs the findings are kept to, in words."""
        if all("lungs" in model.card.outputs and model.preparation.crop == "none" for model in self._models):
            return "the model's own"
        return ", ".join(finder.card.id for finder in self._finders) or "nobody's: findings may lie anywhere"

    def measure(self, case: Case) -> dict[tuple[str, str], float]:
        """Label a case, and return its figures by label and figure."""
        ensemble = self._for(case.patient)
        model = ensemble.models[0]
        said = []
        for part in case.parts:
            seen = look(part.scan.voxels, part.scan.intensity)
            if seen.refusal(case.unit):
                self.refused.add(case.unit)
            if part.scan.intensity == "grey" and self._seen_as != "found":
                equalised = self._seen_as == "equalised"
                seen = Appearance("grey", contrast="equalised" if equalised else "lung window")
            said.append(predict_volume(part.scan, ensemble, appearance=seen, thresholds=self._levels))
        found = dict(_overlaps(case.parts, said, model)) | dict(_painted(case.parts, said, model))
        return {key: value for key, value in found.items() if math.isfinite(value)}


def _seen(model: Model) -> set[str]:
    split = model.card.split
    return {*split.get("training", ()), *split.get("validation", ())}


def _first_unseen(models: Sequence[Model], patient: str) -> Model:
    return next((model for model in models if patient not in _seen(model)), models[0])


Said = list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]


def _where(name: str, lungs: npt.NDArray[np.uint8], lesions: npt.NDArray[np.uint8]) -> Mask:
    if name == "lungs":
        return lungs > 0
    return np.isin(lesions, INSIDE if name == UNION else VALUES[name])


def _says(model: Model, name: str) -> bool:
    if name == UNION:
        return any(label.inside_lungs for label in model.card.lesions)
    return name in model.card.outputs


def _overlaps(parts: list[Part], said: Said, model: Model) -> Iterator[tuple[tuple[str, str], float]]:
    for name in ORDER:
        if not _says(model, name) or not all(name in part.truth for part in parts):
            continue
        total = Counts(0, 0, 0, 0)
        for part, labels in zip(parts, said, strict=True):
            rows = list(part.labelled)
            total += count(_where(name, *labels)[rows], part.truth[name][rows])
        if total.tp + total.fn:
            figures = overlaps(total)
            for figure in ("dice", "sensitivity", "precision") if name == UNION else ("dice",):
                yield (name, figure), figures[figure]


def _painted(parts: list[Part], said: Said, model: Model) -> Iterator[tuple[tuple[str, str], float]]:
    if not any(len(part.free) for part in parts):
        return
    for name in (UNION, "pleural effusion"):
        painted = lung = 0
        for part, (lungs, lesions) in zip(parts, said, strict=True):
            rows = list(part.free)
            counts = np.ones_like(lungs, np.bool_) if part.left_out is None else ~part.left_out
            painted += int(np.count_nonzero((_where(name, lungs, lesions) & counts)[rows]))
            lung += int(np.count_nonzero(((lungs > 0) & counts)[rows]))
        if _says(model, name):
            yield (name, "painted"), 100 * painted / lung if lung else math.nan


def rows(values: Values, others: Values | None) -> list[dict[str, Any]]:
    """Return a row for each figure: those of blind cases, and those of taught ones apart."""
    found = []
    for key in sorted(values, key=lambda key: (key[0], ORDER.index(key[1]), [*FIGURES].index(key[2]))):
        mine = values[key]
        theirs = mine if others is None else others.get(key, {})
        for taught in (False, True):
            both = {unit: one for unit, one in mine.items() if unit in theirs}
            units = [unit for unit, one in both.items() if (one.taught or theirs[unit].taught) == taught]
            if not units:
                continue
            row: dict[str, Any] = dict(zip(("set", "label", "figure"), key, strict=True))
            row |= {"taught": taught, "n": len(units)}
            row["patients"] = sorted({mine[unit].patient for unit in units})
            row |= _summary([mine[unit].value for unit in units])
            if others is not None:
                row["against"] = _summary([theirs[unit].value for unit in units])
                row["difference"] = _summary([mine[unit].value - theirs[unit].value for unit in units])
            found.append(row)
    return found


def _summary(values: list[float]) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), interval(np.array(values)), strict=True))


def table(found: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    heads = ["On", "Label", "Figure", "Blind?", "n", "Mean (95 %)"]
    paired = any("difference" in row for row in found)
    heads += ["Other", "Difference (95 %)"] if paired else []
    lines = [[*heads, "Patients"]]
    lines.append(["---"] * len(lines[0]))
    for row in found:
        line = [row["set"], row["label"], FIGURES[row["figure"]], "taught" if row["taught"] else "blind"]
        line += [str(row["n"]), _shown(row)]
        if paired:
            line += [f"{row['against']['mean']:.3f}", _shown(row["difference"], "+.3f")]
        names = row["patients"]
        lines.append([*line, ", ".join(names) if len(names) < 9 else f"{len(names)} patients"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


IN_CARD = {
    "pictures": "pictures of another source",
    "window": "lung-window pictures",
    "equalised": "equalised slices",
    "hu": "pictures turned into HU",
    "lidc": "a chest without COVID-19",
    "phantoms": "phantoms without findings",
}
"""What a card calls these sets."""


def for_card(found: list[dict[str, Any]], set_: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the blind figures of a set as a card has them, with how they were measured; or nothing."""
    scores: dict[str, Any] = {}
    patients: set[str] = set()
    for row in found:
        if row["set"] == set_ and not row["taught"]:
            name = f"{row['label']} {FIGURES[row['figure']]}"
            scores[name] = round(row["mean"], 4)
            if row["n"] > 1:
                scores[f"{name} 95 % interval"] = [round(row["low"], 4), round(row["high"], 4)]
            patients |= set(row["patients"])
    if scores:
        scores["protocol"] = f"{', '.join(sorted(patients))}: python benchmarks/evaluate.py {' '.join(words)}"
    return scores


def _shown(row: dict[str, Any], form: str = ".3f") -> str:
    between = " to " if "+" in form else "–"
    return f"{row['mean']:{form}} ({row['low']:{form}}{between}{row['high']:{form}})"


def main(words: Sequence[str] | None = None) -> None:
    """Label all, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="id or file; of folds, several")
    parser.add_argument("--against", nargs="+", default=[], help="other models, for paired differences")
    parser.add_argument("--on", default=",".join(USUAL), help=f"of {', '.join(SETS)}, with commas")
    parser.add_argument("--fold", help="of the patients in folds only those of this one are labelled")
    parser.add_argument("--left-out-only", action="store_true", help="skip patients that were taught")
    parser.add_argument("--phantoms", type=int, default=4, help="how many, at most 100")
    parser.add_argument("--threshold", action="append", default=[], metavar="LABEL=P")
    parser.add_argument("--seen-as", choices=SEEN_AS, default="found", help="how pictures are taken")
    parser.add_argument("--against-seen-as", choices=SEEN_AS, default="found")
    parser.add_argument(
        "--lungs-from",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="for models that crop to lungs, or find none",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("COVSEG_DATA", ".")))
    parser.add_argument("--record", action="store_true", help="write the blind figures into the model's card")
    parser.add_argument("--json", action="store_true", help="print JSON, with every patient's values")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.on.split(",")) - set(SETS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(SETS)}")
    if arguments.record and len(arguments.models) > 1:
        parser.error("only the figures of one model go into its card")
    torch.set_num_threads(arguments.threads)
    levels = {name: float(p) for name, _, p in (one.partition("=") for one in arguments.threshold)}
    finders = arguments.lungs_from
    models = Models(arguments.models, arguments.device, arguments.seen_as, levels, finders)
    against = None
    if arguments.against:
        against = Models(arguments.against, arguments.device, arguments.against_seen_as, levels, finders)
    elsewhere = _of_other_folds(arguments.fold)
    values: Values = {}
    others: Values = {}
    slices, seconds = 0, 0.0
    for name in arguments.on.split(","):
        for case in cases(arguments.data, name, min(arguments.phantoms, 100)):
            both = [(models, values), *([(against, others)] if against else [])]
            if case.patient in elsewhere:
                continue
            if arguments.left_out_only and any(one.taught(case.patient) for one, _ in both):
                continue
            for one, kept in both:
                began = time.perf_counter()
                figures = one.measure(case)
                seconds += time.perf_counter() - began
                slices += sum(len(part.scan.voxels) for part in case.parts)
                for (label, figure), value in figures.items():
                    taught = Value(case.patient, one.taught(case.patient), value)
                    for set_ in case.sets:
                        kept.setdefault((set_, label, figure), {})[case.unit] = taught
                told = ", ".join(f"{of} {figure} {value:.3f}" for (of, figure), value in figures.items())
                print(f"{name}, {case.unit}: {told}", file=sys.stderr, flush=True)
    found = rows(values, others if against else None)
    if arguments.record:
        given = sys.argv[1:] if words is None else words
        for set_ in arguments.on.split(","):
            if scores := for_card(found, set_, [word for word in given if word != "--record"]):
                record_in_card(arguments.models[0], IN_CARD.get(set_, set_), scores)
    if not arguments.json:
        print(table(found))
        print(f"\n{', '.join(models.names)}" + (f"; other: {', '.join(against.names)}" if against else ""))
        print(f"Lungs: {models.lungs}" + (f"; of the other: {against.lungs}" if against else ""))
        print(f"{slices} slices in {seconds:.0f} s, {100 * seconds / max(slices, 1):.1f} s for 100")
        if models.refused:
            print(f"Labelled only when asked twice, as no chest CT: {', '.join(sorted(models.refused))}")
        return
    record = {"models": models.names, "against": against.names if against else [], "rows": found}
    record |= {"words": list(sys.argv[1:] if words is None else words), "slices": slices}
    record["lungs"] = models.lungs
    record["refused"] = sorted(models.refused)
    record |= {"seconds": round(seconds, 1), "values": _plain(values), "other_values": _plain(others)}
    print(json.dumps(record, indent=1, ensure_ascii=False))


def _of_other_folds(fold: str | None) -> set[str]:
    """Return the patients that a fold leaves to others."""
    if fold is None:
        return set()
    folds: dict[str, list[str]] = tomllib.loads((HERE / "training_all.toml").read_text())["folds"]
    if fold not in folds:
        sys.exit(f"there is no fold {fold}: there are {', '.join(folds)}")
    return {name for other, names in folds.items() if other != fold for name in names}


def _plain(values: Values) -> dict[str, dict[str, float]]:
    return {" · ".join(key): {unit: one.value for unit, one in of.items()} for key, of in values.items()}


if __name__ == "__main__":
    try:
        main()
    except (ModelError, ScanError) as error:
        sys.exit(str(error))
