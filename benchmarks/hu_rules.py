"""Each rule that puts a network's labels right, on and off, scored on labels.

    COVSEG_DATA=... python benchmarks/hu_rules.py [--model MODEL] [--fold-models FOLDER] [--phantoms N]

A network is run once; what it says is then cleaned with all rules, with none, with all but
one and with only one. The same patients are under both, so that what a rule does is the mean
of the patients' differences, with a bootstrap over the patients:

- five patients' pictures in a lung window, turned into HU, each predicted by the fold model that
  has not seen the patient: 207 slices with lungs and lesions, 82 slices taken to be without lesions;
- a chest with a nodule and without COVID, its nodules left out: what is painted is false;
- a whole chest with a lung mask, on a coarse grid;
- phantoms of the seeds from 20000 on, half of them without findings;
- slices of the abdomen of three patients: all lung there is false.

Nothing here may be used to choose a rule's limits. The pictures' HU are 5.9 * grey - 1350
(`radiopaedia_b` 6.6 * grey - 1400), their pixels are taken to be 0.53 mm: that is 0.65 mm across 512 in
a picture of 630. As their slices are not neighbours, they are not cleaned as a volume; all
others are. The result is stored in ``benchmarks/hu_rules.json``, from which the docs have their table.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from PIL import Image

from napari_covseg.assess.comparison import interval
from napari_covseg.labels import LESIONS
from napari_covseg.metrics import dice
from napari_covseg.metrics.overlap import count, overlaps
from napari_covseg.models.catalogue import DEFAULT, find
from napari_covseg.models.file import Model, load_model
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.labelling import Labeller
from napari_covseg.predict.options import RULES, Rule, Tta
from napari_covseg.predict.volume import finish_volume
from napari_covseg.scans import read_scan
from napari_covseg.scans.appearance import HOUNSFIELD, Appearance
from napari_covseg.scans.scan import Intensity, Scan
from phantom_generator import phantom

HERE = Path(__file__).parent
DATA = Path(os.environ.get("COVSEG_DATA", "."))
PATIENTS = [f"radiopaedia_{letter}" for letter in "abcdh"]
SCALE = {"radiopaedia_b": (6.6, -1400.0)}
PICTURE_MM = 0.65 * 512 / 630
NODULES = (  # centre LPS and half axes (x, y, z) in mm, 5 mm larger than what was read
    ((57, 85, -116), (19, 22, 14)),
    ((-34, -55, -150), (7, 7, 7)),
    ((118, 20, -175), (7, 7, 7)),
    ((110, 51, -175), (7, 7, 7)),
)
ABDOMENS = {  # slices below the lungs
    "lidc_0001.nii.gz": 19,
    "dicom_effusion/LUNG1-016": 6,
    "dicom_covid_P002": 6,
}
SEEDS = 20000
BATCH = 4
INSIDE = [label.value for label in LESIONS if label.inside_lungs]
FIGURES = {
    "lesions": "Lesion Dice",
    "sensitivity": "Lesion sensitivity",
    "volume": "Lesion volume / true",
    "lungs": "Lungs Dice",
    "false": "No lesion: % painted",
    "nodule": "Chest with nodule: % painted",
    "chest": "Coarse chest: lungs Dice",
    "phantom lesions": "Phantoms: lesion Dice",
    "phantom lungs": "Phantoms: lungs Dice",
    "phantom false": "Healthy phantoms: % painted",
    "abdomen": "Abdomen: cm² of lung a slice",
}

WHOLE = {"As pictures": "pictures", "No rule": "none", "All rules": "all"}
"""Rows with the figures themselves: the name of the set of rules."""

Mask = npt.NDArray[np.bool_]
Rules = frozenset[Rule]
Figures = dict[str, float]
Measured = dict[str, dict[str, Figures]]
"""Of each set of rules, each figure, the value of each patient."""


@dataclass(frozen=True, eq=False)
class Case:
    """Slices of a patient, as they are given to the network.

    Attributes
    ----------
    name : str
    voxels : ndarray of int16, shape (z, y, x)
    spacing : tuple of float, or None
        (z, y, x) in mm.
    intensity : {"HU", "grey"}
    volume : bool
        Whether the slices are neighbours.
    """

    name: str
    voxels: npt.NDArray[np.int16]
    spacing: tuple[float, float, float] | None
    intensity: Intensity = "HU"
    volume: bool = True


_SEEN = {"HU": HOUNSFIELD, "grey": Appearance("grey", contrast="lung window")}


class Labelled:
    """What a model gives for a case, cleaned by any rules.

    Parameters
    ----------
    case : Case
    asked : Ensemble
    levels : dict of str to float
        Thresholds, per output.
    """

    def __init__(self, case: Case, asked: Ensemble, levels: dict[str, float]) -> None:
        self._case = case
        pixel = case.spacing[1:] if case.spacing else None
        read = case.voxels.__getitem__
        self._labeller = Labeller(read, asked, _SEEN[case.intensity], pixel, levels)
        self._given = []
        for first in range(0, len(case.voxels), BATCH):
            now = self._labeller.prepare(list(range(first, min(first + BATCH, len(case.voxels)))))
            self._given.append((now, self._labeller.infer(now)))

    def labels(self, rules: Rules) -> tuple[Mask, Mask]:
        """Return lungs and findings that lie in them, each (z, y, x)."""
        case = self._case
        labeller = replace(self._labeller, rules=rules)
        lungs, lesions = np.zeros((2, *case.voxels.shape), np.uint8)
        for now, given in self._given:
            for one in labeller.label(now, given):
                lungs[one.z], lesions[one.z] = one.lungs, one.lesions
        if case.volume:
            labels = labeller.ensemble.card.lesions
            for changed in finish_volume(
                lambda z: (lungs[z], lesions[z]), len(lungs), spacing=case.spacing, labels=labels
            ):
                if changed is not None:
                    z, lungs[z], lesions[z] = changed
        return lungs > 0, np.isin(lesions, INSIDE)


def sets() -> dict[str, Rules]:
    """Return the sets of rules that are compared, by name."""
    named = {"all": RULES, "none": frozenset[Rule]()}
    named |= {f"without {rule}": RULES - {rule} for rule in sorted(RULES)}
    return named | {f"only {rule}": frozenset({rule}) for rule in sorted(RULES)}


class Models:
    """The model that is measured, and its fold models.

    Parameters
    ----------
    name : str
        Id or file.
    folds : Path
        Folder of ``fold1.safetensors`` and so on; their cards name their patients.
    """

    def __init__(self, name: str, folds: Path) -> None:
        self.model = load_model(find(name).path, "cpu")
        self._folds = [load_model(path, "cpu") for path in sorted(folds.glob("fold*.safetensors"))]

    def ask(self, case: Case, model: Model | None = None) -> Labelled:
        """Run a model on a case as the measured model's card asks for it."""
        asked = Ensemble((model or self.model,), cast(Tta, self.model.card.tta))
        return Labelled(case, asked, {**asked.thresholds, **self.model.card.thresholds})

    def unseen(self, patient: str) -> Model:
        """Return the fold model that was tested on a patient."""
        for model in self._folds:
            if patient in model.card.split["test"]:
                if patient in {*model.card.split["training"], *model.card.split["validation"]}:
                    sys.exit(f"{model.card.id} has seen {patient}")
                return model
        sys.exit(f"no fold model was tested on {patient}")


def pictures(patient: str, status: str) -> tuple[npt.NDArray[np.int16], Mask]:
    """Return a patient's pictures, grey, with lungs and lesions, (2, z, y, x), where they are known."""
    folder = DATA / "radiopaedia_lungwindow" / patient
    with (folder / "slices.csv").open(newline="") as lines:
        names = [row["slice"] for row in csv.DictReader(lines) if row["status"] == status]
    if not names:
        return np.zeros((0, 8, 8), np.int16), np.zeros((2, 0, 8, 8), bool)
    grey = np.stack([np.asarray(Image.open(folder / "ct" / f"{name}.jpg").convert("L")) for name in names])
    truth = np.zeros((2, *grey.shape), bool)
    if status == "lesion_mask":
        for row, kind in enumerate(("lungs", "infection")):
            for z, name in enumerate(names):
                truth[row, z] = np.asarray(Image.open(folder / kind / f"{name}.png")) > 0
    return grey.astype(np.int16), truth


def in_hu(patient: str, grey: npt.NDArray[np.int16]) -> Case:
    """Return pictures in a lung window as slices in HU."""
    slope, start = SCALE.get(patient, (5.9, -1350.0))
    hu = np.clip(np.round(slope * grey + start), -1024, None).astype(np.int16)
    return Case(patient, hu, (5.0, PICTURE_MM, PICTURE_MM), volume=False)


def share(painted: Mask, lungs: Mask) -> float:
    """Painted voxels in per cent of the lungs."""
    return 100 * float(painted.sum()) / max(1.0, float(lungs.sum()))


def on_pictures(models: Models) -> Iterator[tuple[str, str, Figures]]:
    """Yield of the patients of the lung-window pictures: patient, set of rules, figures."""
    for patient in PATIENTS:
        grey, (lungs, lesions) = pictures(patient, "lesion_mask")
        model = models.unseen(patient)
        hu = models.ask(in_hu(patient, grey), model)
        cases = {name: hu.labels(rules) for name, rules in sets().items()}
        as_picture = models.ask(Case(patient, grey, None, "grey"), model)
        cases["pictures"] = as_picture.labels(RULES)
        for name, (found_lungs, found) in cases.items():
            yield (
                patient,
                name,
                {
                    "lesions": dice(found, lesions),
                    "sensitivity": overlaps(count(found, lesions))["sensitivity"],
                    "volume": float(found.sum()) / float(lesions.sum()),
                    "lungs": dice(found_lungs, lungs),
                },
            )
        grey, _ = pictures(patient, "no_lesion_inferred")
        if len(grey):
            said = models.ask(in_hu(patient, grey), model)
            known, _ = said.labels(RULES)
            for name, rules in sets().items():
                yield patient, name, {"false": share(said.labels(rules)[1], known)}
            said = models.ask(Case(patient, grey, None, "grey"), model)
            known, painted = said.labels(RULES)
            yield patient, "pictures", {"false": share(painted, known)}


def around(scan: Scan) -> Mask:
    """Return where the nodules of the chest without COVID are, (z, y, x)."""
    index = np.indices(scan.voxels.shape, np.float32).reshape(3, -1)
    world = scan.affine[:3, :3] @ index + scan.affine[:3, 3:]
    near = np.zeros(index.shape[1], bool)
    for centre, half in NODULES:
        near |= (((world - np.reshape(centre, (3, 1))) / np.reshape(half, (3, 1))) ** 2).sum(0) < 1
    return near.reshape(scan.voxels.shape)


def on_scans(models: Models) -> Iterator[tuple[str, str, Figures]]:
    """Yield of the chest with a nodule, of that on a coarse grid, and of the abdomens."""
    for path, last in ABDOMENS.items():
        scan = read_scan(DATA / path)
        said = models.ask(Case(path, scan.voxels[:last], scan.spacing, volume=False))
        for name, rules in sets().items():
            assert scan.spacing is not None
            area = said.labels(rules)[0].sum() * scan.spacing[1] * scan.spacing[2] / 100 / last
            yield Path(path).name.split(".")[0], name, {"abdomen": float(area)}
    scan = read_scan(DATA / "lidc_0001.nii.gz")
    said = models.ask(Case("lidc_0001", scan.voxels, scan.spacing))
    apart = ~around(scan)
    known, _ = said.labels(RULES)
    for name, rules in sets().items():
        yield "lidc_0001", name, {"nodule": share(said.labels(rules)[1] & apart, known & apart)}
    scan = read_scan(DATA / "cip_leftright_64" / "ct-64.nrrd")
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(DATA / "cip_leftright_64" / "wholeLung-64.nrrd"))) > 0
    said = models.ask(Case("cip_leftright_64", scan.voxels, scan.spacing))
    for name, rules in sets().items():
        yield "cip_leftright_64", name, {"chest": dice(said.labels(rules)[0], truth)}


def on_phantoms(models: Models, count: int, stride: int) -> Iterator[tuple[str, str, Figures]]:
    """Yield of phantoms: even seeds have findings, odd ones have none."""
    for seed in range(SEEDS, SEEDS + 2 * count):
        ill = seed % 2 == 0
        made = phantom(seed, lesions=ill)
        assert made.scan.spacing is not None
        dz, dy, dx = made.scan.spacing
        said = models.ask(Case(str(seed), made.scan.voxels[::stride], (dz * stride, dy, dx)))
        lungs, lesions = made.lungs[::stride] > 0, np.isin(made.lesions[::stride], INSIDE)
        for name, rules in sets().items():
            found_lungs, found = said.labels(rules)
            if ill:
                yield (
                    str(seed),
                    name,
                    {"phantom lesions": dice(found, lesions), "phantom lungs": dice(found_lungs, lungs)},
                )
            else:
                yield str(seed), name, {"phantom false": share(found, lungs)}


def rows(measured: Measured) -> list[list[str]]:
    """Return the table's rows: the figures with all rules and with none, and what each rule does."""
    found = [[name, *(_mean(measured[key].get(figure)) for figure in FIGURES)] for name, key in WHOLE.items()]
    pairs = [("All rules less no rule", "all", "none")]
    for rule in sorted(RULES):
        pairs += [
            (f"{rule}, after the others", "all", f"without {rule}"),
            (f"{rule}, alone", f"only {rule}", "none"),
        ]
    for title, on, off in pairs:
        cells = [_difference(measured[on].get(figure), measured[off].get(figure)) for figure in FIGURES]
        found.append([title, *cells])
    return found


def _mean(values: Figures | None) -> str:
    return f"{np.mean(list(values.values())):.3f}" if values else "–"


def _difference(on: Figures | None, off: Figures | None) -> str:
    if not on or not off:
        return "–"
    mean, low, high = interval(np.array([on[name] - off[name] for name in on]))
    if all(on[name] == off[name] for name in on):
        return "0"
    if len(on) == 1:
        return f"{mean:+.3f}"
    cell = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{cell}**" if low > 0 or high < 0 else cell


def table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *cells])


def main() -> None:
    """Print the table and store it with the figures of every patient."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT, help="id or file; its card's thresholds are taken")
    parser.add_argument(
        "--fold-models", type=Path, default=HERE / "folds", help="folder of foldN.safetensors"
    )
    parser.add_argument("--phantoms", type=int, default=12, help="of each kind, at most 50")
    parser.add_argument("--stride", type=int, default=2, help="of the slices of a phantom that are taken")
    parser.add_argument("--out", type=Path, default=HERE / "hu_rules.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # what is shared by no threads comes in the same order
    models = Models(arguments.model, arguments.fold_models)
    measured: Measured = {}
    for measure in (
        on_pictures(models),
        on_scans(models),
        on_phantoms(models, min(arguments.phantoms, 50), arguments.stride),
    ):
        for patient, name, figures in measure:
            for figure, value in figures.items():
                measured.setdefault(name, {}).setdefault(figure, {})[patient] = round(value, 5)
            if name == "all":
                print(patient, {key: round(value, 3) for key, value in figures.items()}, file=sys.stderr)
    heads, cells = ["Rule", *FIGURES.values()], rows(measured)
    print(table(heads, cells))
    for figure, title in FIGURES.items():
        print(f"{title}: {', '.join(measured['all'].get(figure, {}))}")
    result = {
        "model": models.model.card.id,
        "thresholds": models.model.card.thresholds,
        "phantoms": arguments.phantoms,
        "stride": arguments.stride,
        "heads": heads,
        "rows": cells,
        "values": measured,
    }
    arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
