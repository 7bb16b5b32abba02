"""Write the results page and its pictures from the stored runs: `results.md`, `images/results-*.svg`.

    python docs/make_results.py [--runs benchmarks/runs] [--out docs]

Reads the runs of `covseg assess`, the times of `benchmarks/network_times.py`, the table of
`benchmarks/hu_rules.py`, the card of the default model and `paper_figures.toml`; trains nothing.
Needs ``napari-covseg[docs]`` if there are runs to draw.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_covseg.assess.comparison import Mean, Network, read_networks
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import find
from napari_covseg.networks.catalogue import CATALOGUE, NetworkEntry

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from results_pictures import CHART, draw_all  # noqa: E402

from network_tables import papers_tables  # noqa: E402

RUNS = REPOSITORY / "benchmarks" / "runs"
TIMES = REPOSITORY / "benchmarks" / "network_times.json"
RULES = REPOSITORY / "benchmarks" / "hu_rules.json"
PAPERS = HERE / "paper_figures.toml"
TEMPLATE = HERE / "results.template"
METRICS = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "mae": "MAE %",
    "assd": "ASSD",
}
NONE = "–"
PLAIN = "unet-lungs-lesion"
"""The model of our own that was cross-validated: the default one before `covseg`."""


@dataclass(frozen=True)
class Found:
    """What the page is made of.

    Attributes
    ----------
    networks : list of Network
        From `read_networks`.
    card : ModelCard
        Of `PLAIN`.
    times : list of dict
        One for each device, as `network_times.py` records them.
    papers : dict
        `paper_figures.toml`.
    rules : dict
        What `hu_rules.py` stored.
    """

    networks: list[Network]
    card: ModelCard
    times: list[dict[str, Any]] = field(default_factory=list)
    papers: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)

    def under(self, protocol: str) -> dict[str, Network]:
        """Return the networks that were run under a protocol, the best first."""
        return {one.recipe: one for one in self.networks if one.protocol == protocol}

    @property
    def default_entry(self) -> NetworkEntry | None:
        """The catalogue's entry of the network that `PLAIN` is."""
        name, settings = self.card.network["name"], self.card.network.get("settings", {})
        same = [one for one in CATALOGUE if (one.network, one.settings) == (name, settings)]
        return same[0] if same else None


def page(found: Found, pictures: Sequence[str] = ()) -> str:
    """Return the page as Markdown, with those pictures that there are."""
    filled = TEMPLATE.read_text(encoding="utf-8").format(
        how_made=how_made(found.under("patient")),
        glance=glance(found),
        protocol=found.card.scores["cross-validation"]["protocol"],
        pictures="\n\n".join(f"![{CHART[name]}](images/{name}.svg)" for name in pictures),
        side_by_side=side_by_side(found),
        reported=reported(found),
        notes=notes(found),
        timing=timing(found),
        rules=rules(found.rules),
        asked=asked(),
    )
    return re.sub(r"\n{3,}", "\n\n", filled)


def side_by_side(found: Found) -> str:
    """Return what `benchmarks/network_tables.py` prints, and the lungs in other figures."""
    if not found.networks:
        return ""
    told = (
        "## Side by side\n\nWhat `python benchmarks/network_tables.py` prints of the same runs; "
        "[Assessment](assessment.md#what-is-measured) says what each figure is."
    )
    return "\n\n".join([told, papers_tables(found.networks).strip(), lungs(found.under("patient"))])


def how_made(networks: dict[str, Network]) -> str:
    """Say how far the runs are, and how long they were."""
    if not networks:
        return "**No network has been trained for this table yet.**"
    complete = sum(one.complete for one in networks.values())
    records = [record for one in networks.values() for record in one.records]
    sizes = sorted({one["size"] for one in records})
    steps = sorted({one["steps"] for one in records})
    devices = sorted({f"{one['device']} in {one.get('precision', 'float32')}" for one in records})
    whole = "all of them" if complete == len(networks) else f"{complete} of them"
    told = (
        f"Trained so far: {len(networks)} of {len(CATALOGUE)} networks, {whole} on all folds; "
        f"slices of {' and '.join(f'{size}²' for size in sizes)}, {_range(steps)} steps a fold, on "
        f"{', '.join(devices)}."
    )
    if complete < len(networks):
        told += (
            " Where folds are missing, the mean is over fewer patients: compare it patient by patient only."
        )
    short = (
        " The papers train longer and at more pixels: these are their recipes **shortened** alike, and a "
        "network that learns slowly loses by that. Read the order of the networks with this in mind."
    )
    return told + (short if any(map(_shortened, records)) else "")


def glance(found: Found) -> str:
    """One line for each network: our own plain U-Net, those that were trained, the others."""
    trained = found.under("patient")
    heads = ["Network", "Lesion Dice", "Lungs Dice", "Folds", "Million parameters", "GMAC at 256²"]
    heads += [f"ms per slice, {one['device']}" for one in found.times]
    scores = found.card.scores["cross-validation"]
    rows = [
        [
            f"**Plain U-Net of our own** (`{found.card.id}`)",
            *(
                _interval(scores[f"{name} Dice"], *scores[f"{name} 95 % interval"])
                for name in ("lesions", "lungs")
            ),
            "all",
            *_size(found.default_entry),
            *_times(found, found.card.id),
        ]
    ]
    entries = {entry.name: entry for entry in CATALOGUE}
    for name, one in sorted(trained.items(), key=lambda pair: not pair[1].complete):  # the others after them
        folds = f"{len(one.records)} of {len(one.records[0]['folds'])}"
        means = [_mean(one.mean(output, "dice")) for output in ("lesion", "lungs")]
        rows.append([f"`{name}`", *means, folds, *_size(entries.get(name)), *_times(found, name)])
    for name, entry in entries.items():
        if name not in trained:
            rows.append([f"`{name}`", "not trained", "", "", *_size(entry), *_times(found, name)])
    return table(heads, rows)


def lungs(networks: dict[str, Network]) -> str:
    """Return the other figures of the lungs, as the tables before have those of the lesions."""
    names = ("jaccard", "sensitivity", "specificity", "precision", "assd")
    rows = [
        [name, *(_spread(one.mean("lungs", metric), metric) for metric in names)]
        for name, one in networks.items()
    ]
    heads = ["Network", *(METRICS[name] + (" px" if name == "assd" else "") for name in names)]
    return (
        f"### The lungs in other figures\n\nMean ± sd over the patients.\n\n{table(heads, rows)}"
        if rows
        else ""
    )


def reported(found: Found) -> str:
    """Return the papers' own figures, with ours beside them where there are any."""
    by_patient, by_slice = found.under("patient"), found.under("slice")
    rows = []
    for one in found.papers.get("figure", []):
        name, output = one["network"], one["output"]
        told = [
            one.get(metric, NONE) + ("\\*" if metric in one.get("impossible", []) else "")
            for metric in METRICS
        ]
        ours = [
            _mean(runs[name].mean(output, "dice")) if name in runs else NONE
            for runs in (by_patient, by_slice)
        ]
        rows.append([f"`{name}`", output, *told, *ours])
    heads = ["Network", "Output", *METRICS.values(), "Our Dice, by patient", "Our Dice, by slice"]
    return table(heads, rows) if rows else ""


def notes(found: Found) -> str:
    """Say of each paper what its figures were measured on."""
    lines = []
    for one in found.papers.get("paper", []):
        leak = " **Slices of one patient lie on both sides.**" if one["leak"] else ""
        lines.append(f"- **{one['name']}**: {one['data']}; {one['split']}.{leak} {one['note']}")
    return "\n".join(lines)


def timing(found: Found) -> str:
    """Return all measured times with what they were measured on."""
    parts = []
    for one in found.times:
        threads = f", {one['threads']} threads" if one["threads"] else ""
        entries = {entry.name: entry for entry in CATALOGUE}
        rows = [
            [
                f"`{name}`",
                *_size(entries.get(name, found.default_entry)),
                f"{time['ms']:.1f}",
                f"{time['ratio']:.2f}",
            ]
            for name, time in sorted(one["networks"].items(), key=lambda pair: pair[1]["ms"])
        ]
        heads = ["Network", "Million parameters", "GMAC at 256²", "ms per slice", f"to `{one['against']}`"]
        way = "side by side" if one["threads"] else "at a time"
        note = (
            f"{one['device']}{threads}, PyTorch {one['torch']}, {one['batch']} slices of {one['size']}² "
            f"{way}, medians of {one['rounds']} interleaved rounds. `{PLAIN}` is our own plain U-Net as "
            "it is used, with its test-time augmentation, on a phantom chest; the others are bare networks."
        )
        parts.append(f"{note}\n\n{table(heads, rows)}")
    how = "Times are measured by `python benchmarks/network_times.py --record` (`--device cuda` on a GPU)."
    return "\n\n".join([*parts, how])


def rules(stored: dict[str, Any]) -> str:
    """Return what each rule on a network's labels does: on real scans, then on phantoms and abdomens."""
    if not stored:
        return ""
    heads, cells = stored["heads"], stored["rows"]
    half = 6
    parts = [table(heads[:half], [row[:half] for row in cells])]
    parts.append(table([heads[0], *heads[half:]], [[row[0], *row[half:]] for row in cells]))
    number = stored["phantoms"]
    note = (
        f"Model: `{stored['model']}`, and its fold models on the pictures; {number} phantoms with "
        f"findings and {number} without."
    )
    return "\n\n".join([note, *parts])


def asked() -> str:
    """Return what asks `covseg assess` for all networks."""
    names = [f"--recipe {entry.name}" for entry in CATALOGUE]
    lines = [" ".join(names[i : i + 3]) for i in range(0, len(names), 3)]
    first = "benchmarks/training.toml --size 256 --device cuda --out benchmarks/runs-gpu"
    return " \\\n    ".join([first, *lines])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _size(entry: NetworkEntry | None) -> list[str]:
    return [f"{entry.parameters / 1e6:.3f}", f"{entry.gmac:.2f}"] if entry else [NONE, NONE]


def _times(found: Found, name: str) -> list[str]:
    times = [one["networks"].get(name) for one in found.times]
    return [NONE if one is None else f"{one['ms']:.1f}" for one in times]


def _mean(mean: Mean) -> str:
    return _interval(mean.mean, mean.low, mean.high) if mean.n else NONE


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.3f} ({low:.3f}–{high:.3f})"


def _spread(mean: Mean, metric: str) -> str:
    digits = 2 if metric == "assd" else 3
    if not mean.n:
        return NONE
    return f"{mean.mean:.{digits}f}" + (f" ± {mean.sd:.{digits}f}" if mean.n > 1 else "")


def _shortened(record: dict[str, Any]) -> bool:
    """Whether a fold was trained for less than its recipe says, or at fewer pixels than any paper has."""
    asked = record["asked"]
    recipe = asked.get("recipe", {})
    fewer = bool(asked.get("budget") or record.get("shortened") or (recipe.get("epochs") and recipe["steps"]))
    return fewer or record["size"] < 224


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]}–{values[-1]}"


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    times = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.is_file() else []
    papers = tomllib.loads(PAPERS.read_text(encoding="utf-8"))
    measured = json.loads(RULES.read_text(encoding="utf-8")) if RULES.is_file() else {}
    found = Found(read_networks(arguments.runs), find(PLAIN).card, times, papers, measured)
    pictures = draw_all(found.networks, found.card, times, arguments.out / "images")
    (arguments.out / "results.md").write_text(page(found, pictures), encoding="utf-8")
    print(f"wrote {arguments.out / 'results.md'}: {len(found.networks)} networks, {len(pictures)} pictures")


if __name__ == "__main__":
    main()
