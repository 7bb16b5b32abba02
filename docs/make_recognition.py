"""Write the page of recognition and its pictures from stored runs: `recognition.md`, `recognition-*.svg`.

    python docs/make_recognition.py [--runs benchmarks/recognition] [--out docs]

Reads what `covseg assess --task recognition|manifestations --out benchmarks/recognition` and
`benchmarks/recognition_remedies.py` have stored; trains nothing. Needs ``napari-covseg[docs]``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RUNS = HERE.parent / "benchmarks" / "recognition"
PAPER = 0.994
"""Accuracy of the paper's two classes of X-rays (Table of stage 1)."""
DATA = {
    "recognition": "X-rays of adults, COVID-19 against everything else",
    "recognition_children": "X-rays as papers put them together: COVID-19 of adults, the rest mostly "
    "children of one hospital",
    "recognition_ct": "Single CT pictures, COVID-19 against everything else",
}
DRAWN = ("by patient", "one website left out")
GREY = "#777777"

Run = dict[str, Any]


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description="Write the page of recognition from stored runs.")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    runs = [json.loads(path.read_text("utf-8")) for path in sorted(arguments.runs.glob("*.json"))]
    pictures = draw_all(runs, arguments.out / "images")
    (arguments.out / "recognition.md").write_text(page(runs, pictures), encoding="utf-8")


def page(runs: Sequence[Run], pictures: Sequence[str] = ()) -> str:
    """Return the page.

    Parameters
    ----------
    runs : sequence of dict
        What is stored.
    pictures : sequence of str
        Names of the pictures in `images`.
    """
    assessed = [run for run in runs if "assessed" in run]
    told = [one for run in runs if "told" in run for one in run["told"]]
    recognised = [run for run in assessed if run["data"] in DATA]
    findings = [run for run in assessed if run["data"] not in DATA]
    parts = [
        "<!-- Written by docs/make_recognition.py: do not edit. -->\n\n# Recognition",
        first(recognised, told),
    ]
    for name, title in DATA.items():
        mine = [run for run in recognised if run["data"] == name]
        if not mine:
            continue
        parts.append(f"## {title}")
        for run in mine:
            parts += [f"### `{run['recipe']['name']}`", command(run, "recognition"), table(run)]
            parts.append(matrices(run))
            parts += [
                f"![Confusion matrix and reliability of {run['recipe']['name']}](images/{picture})"
                for picture in pictures
                if picture == picture_name(run)
            ]
        if name == "recognition_children":
            parts.append(CHILDREN)
    parts += remedies([run for run in runs if "told" in run])
    if findings:
        parts += ["## Manifestations", MANIFESTATIONS]
        for run in findings:
            name = run["recipe"]["name"]
            parts += [f"### `{name}`", command(run, "manifestations"), finding_table(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


CHILDREN = (
    "With four classes the figure says little: the viral and the normal pictures are of children of one"
    " hospital, the bacterial ones of seven patients. Whoever tells a child from an adult is right "
    "nearly always."
)
MANIFESTATIONS = (
    "Ground-glass, consolidation and pleural effusion, each by itself, on slices of which it is known "
    "whether they show it (10 pixels at least); *lesion* is at least one of the first two. "
    "`covseg-manifestations` passes on where the segmentation model is surest: what it says is the "
    "segmentation model's answer, calibrated for the slice, so that there is one. Of *by fold* each "
    "patient is seen by a segmentation model that has not learned from the patient; for whom there is "
    "none is not tested. Ground-glass is on all but two of the fifty pictures of covid_semiseg, so that its "
    "figures there say nothing, and of what is no consolidation there most is still called one at 0.5.\n\n"
    "`python benchmarks/manifestation_curves.py $COVSEG_DATA/dicom_covid_P002 "
    "$COVSEG_DATA/lidc_0001.nii.gz` draws the curves of two scans that never taught. Of the first, with "
    "ground-glass mainly on the left, it is found on 63 % of the slices and on none above slice 108, in "
    "the apex; consolidation is found on 55 %, which is too often. Of the second, without COVID-19, "
    "nothing is found on 97.5 % of the slices that do not show its nodule, and its nodule is called a "
    "consolidation."
)


def first(runs: Sequence[Run], remedied: Sequence[dict[str, Any]] = ()) -> str:
    """Return the first paragraph: what is left of the paper's figure, and what remedies bring back."""
    told = {run["data"]: figures(run) for run in runs if run["recipe"]["name"].startswith("covseg")}
    pairs = (run for run in runs if run["data"] == "recognition_children" and len(run["outputs"]) == 2)
    children = next((figures(run) for run in pairs), {})
    words = [f"Elbana 2020 tells COVID-19 from normal X-rays with an accuracy of {PAPER:.1%}."]
    if children:
        words.append(
            "The same recipe on the same kind of pictures has "
            f"{text(children['by patient']['accuracy'])} here, by patient, and "
            f"{text(children['borders only, by patient']['accuracy'])} with everything but the "
            "borders blacked out, where there are no lungs: it reads where a picture comes from."
        )
    if adults := told.get("recognition"):
        within = next((name for name in adults if name.startswith("within ")), "")
        words.append(
            "Where the source cannot be read from the picture, nothing that could be relied on is left: "
            f"among adults the AUC is {text(adults['by patient']['auc'])} by patient, "
            f"{text(adults['one website left out']['auc'])} for websites that did not teach"
            + (f", and {text(adults[within]['auc'])} {within}." if within else ".")
        )
    chosen = [
        f"{text(one['figures']['auc'])} within {one['within']}"
        for one in remedied
        if one["remedy"].startswith("chosen") and ".org" in one["within"]
    ]
    if chosen:
        words.append(f"With the remedies below, chosen on inner folds, it is {' and '.join(chosen)}.")
    if scans := told.get("recognition_ct"):
        words.append(
            f"CT pictures: accuracy {text(scans['by patient']['accuracy'])} within the sources that taught, "
            f"{text(scans['one website left out']['accuracy'])} across sources."
        )
    words.append(
        "The cards of the models that can be installed (`covseg models install covseg-xray` and "
        "`covseg-ct`) say so, and their probabilities are shown as no finding."
    )
    return " ".join(words)


def figures(run: Run) -> dict[str, Any]:
    """Return the figures of each way to divide."""
    return {one["protocol"]: one["figures"] for one in run["assessed"]}


def command(run: Run, task: str) -> str:
    """Return the command that prints a run."""
    more = " --untaught benchmarks/manifestations_untaught.toml" if task == "manifestations" else ""
    name = run["recipe"]["name"]
    weights = (
        " --weights FOLDER_OF_FOLD_MODELS" if run["recipe"]["network"] == "efficientunetfindings" else ""
    )
    return (
        f"`covseg assess benchmarks/{run['data']}.toml --task {task} --recipe {name}{more}{weights} "
        "--out benchmarks/recognition`"
    )


def table(run: Run) -> str:
    """Return the figures of a run, a row for each way to divide."""
    names = ("auc", "accuracy", "sensitivity", "specificity", "f1", "mcc", "brier")
    rows = [
        [
            one["protocol"],
            f"{one['figures']['pictures']} of {one['figures']['patients']}",
            *(text(one["figures"][name]) for name in names),
        ]
        for one in run["assessed"]
    ]
    heads = [
        "Divided",
        "Pictures of patients or groups",
        "AUC",
        "Accuracy",
        "Sensitivity",
        "Specificity",
        "F1",
    ]
    return markdown([*heads, "MCC", "Brier"], rows)


def matrices(run: Run) -> str:
    """Return the confusion matrix by patient."""
    found = figures(run).get("by patient")
    if found is None:
        return ""
    rows = [[name, *map(str, row)] for name, row in zip(run["outputs"], found["confusion"], strict=True)]
    return markdown(["By patient: what is (rows), what was found", *run["outputs"]], rows)


def finding_table(run: Run) -> str:
    """Return the figures of findings."""
    rows = [
        [one["protocol"], name, f"{told['shown']} of {told['slices']}", str(told["patients"])]
        + [text(told[key]) for key in ("auc", "sensitivity", "specificity")]
        for one in run["assessed"]
        for name, told in one["figures"].items()
    ]
    heads = [
        "Tested",
        "Finding",
        "Shown on slices",
        "Patients or blocks",
        "AUC",
        "Sensitivity",
        "Specificity",
    ]
    return markdown(heads, rows)


def remedies(stored: Sequence[Run]) -> list[str]:
    """Return what remedies did."""
    if not stored:
        return []
    rows = [
        [one["within"], one["remedy"], f"{one['figures']['pictures']} of {one['figures']['patients']}"]
        + [text(one["figures"][name]) for name in ("auc", "accuracy")]
        for run in stored
        for one in run["told"]
    ]
    note = (
        "`python benchmarks/recognition_remedies.py xrays` and `ct`. *Chosen on inner folds* is the "
        "honest figure: in each fold the remedy that is best among those who teach. Any other row was "
        "picked after the fact, if it is picked because it is high."
    )
    heads = ["Within", "Remedy", "Pictures of patients or groups", "AUC", "Accuracy"]
    return ["## Remedies within one source", note, markdown(heads, rows)]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(figure: Sequence[float | None]) -> str:
    """Return a figure with its interval."""
    value, low, high = (math.nan if one is None else one for one in figure)
    return "–" if math.isnan(value) else f"{value:.3f} ({low:.3f}–{high:.3f})"


def picture_name(run: Run) -> str:
    """Return the name of a run's picture."""
    return f"recognition-{run['data']}-{run['recipe']['name']}.svg"


def draw_all(runs: Sequence[Run], folder: Path) -> list[str]:
    """Draw the confusion matrix and the reliability of each run, and return the names."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "recognition"  # the same file each time
    import matplotlib.pyplot as plt

    names = []
    for run in runs:
        if run.get("data") not in DATA or "by patient" not in figures(run):
            continue
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
        counts = figures(run)["by patient"]["confusion"]
        left.imshow(
            [[value / max(1, sum(row)) for value in row] for row in counts], cmap="Blues", vmin=0, vmax=1
        )
        for y, row in enumerate(counts):
            for x, value in enumerate(row):
                dark = value > 0.6 * sum(row)
                left.text(x, y, str(value), ha="center", va="center", color="white" if dark else "black")
        left.set_xticks(range(len(counts)), run["outputs"], rotation=20)
        left.set_yticks(range(len(counts)), run["outputs"])
        left.set_xlabel("found")
        left.set_ylabel("is")
        right.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        for one in run["assessed"]:
            if one["protocol"] in DRAWN:
                said, so, _ = zip(*one["reliability"], strict=True)
                right.plot(said, so, marker="o", label=one["protocol"])
        right.set_xlabel(f"probability of {run['outputs'][0]}")
        right.set_ylabel("share that is")
        right.legend()
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / picture_name(run), metadata={"Date": None})
        plt.close(figure)
        names.append(picture_name(run))
    return names


if __name__ == "__main__":
    main()
