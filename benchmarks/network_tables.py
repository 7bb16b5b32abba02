"""Print the tables of the papers' networks from the stored runs: those of `covseg assess --show`, and more.

    python benchmarks/network_tables.py [RUNS] [--recipe NAME ...] [--json] [--figure BOXES.svg]

Beside the tables of `covseg assess`: the same predictions averaged as different papers average them, and
split by slice beside split by patient. Trains nothing. The figure needs ``napari-covseg[docs]``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_covseg.assess.comparison import (
    LEAK,
    Network,
    difference,
    pooled,
    read_networks,
)
from napari_covseg.assess.tables import (
    difference_text,
    mean_text,
    network_record,
    network_tables,
    number_text,
    section,
    under,
    without_nan,
)
from napari_covseg.errors import CovsegError, JobError
from napari_covseg.metrics.overlap import Counts, overlaps

RUNS = Path(__file__).parent / "runs"


@dataclass(frozen=True)
class Figure:
    """A metric's mean over slices.

    Attributes
    ----------
    value, sd : float
        Mean, and standard deviation of the sample (n - 1); NaN without a slice, or with one.
    n : int
        Slices that the mean is taken over.
    empty : int
        Slices in which an empty mask left the metric without a value.
    """

    value: float
    sd: float
    n: int
    empty: int


def main() -> None:
    """Print the tables, and draw the figure if there is to be one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="?", default=RUNS)
    parser.add_argument("--recipe", action="append", default=[], help="only this network; may be repeated")
    parser.add_argument("--json", action="store_true", help="the same for machines")
    parser.add_argument("--figure", type=Path, help="picture with a box for each network")
    given = parser.parse_args()
    try:
        networks = read_networks(given.runs, given.recipe)
        if given.json:
            print(json.dumps(papers_record(networks, given.recipe), allow_nan=False))
        else:
            print(papers_tables(networks, given.recipe), end="")
        if given.figure is not None:
            draw_boxes(networks, given.figure)
    except CovsegError as error:
        raise SystemExit(str(error)) from error


def papers_tables(networks: Sequence[Network], wanted: Sequence[str] = ()) -> str:
    """Return all tables as Markdown; see `tables.network_tables` for the parameters."""
    others = [network for network in networks if network.protocol != "slice"]
    more = [
        _averages_table([network for network in networks if network.protocol != "source"]),
        _leak_table(under(networks, "patient"), under(networks, "slice")),
    ]
    return "\n\n".join(part for part in (network_tables(others, wanted).strip(), *more) if part) + "\n"


def papers_record(networks: Sequence[Network], wanted: Sequence[str] = ()) -> dict[str, Any]:
    """Return the same for machines."""
    record = network_record(networks, wanted)
    for network, values in zip(networks, record["networks"], strict=True):
        values["averages"] = without_nan({output: _averages(network, output) for output in network.outputs})
    partners = {network.recipe: network for network in under(networks, "patient")}
    leak = [
        {"network": other.recipe, **asdict(difference(other, partners[other.recipe]))}
        for other in under(networks, "slice")
        if other.recipe in partners
    ]
    return {**record, "leak": without_nan(leak)}


def by_slice(
    network: Network,
    output: str,
    metric: str = "dice",
    *,
    infected: bool = False,
    empty: Literal["left out", "agree"] = "left out",
) -> Figure:
    """Return the mean of a metric over slices.

    Parameters
    ----------
    network : Network
    output : str
    metric : str
        Of overlap, or ``"assd"``.
    infected : bool
        Only of slices on which there is something to be found.
    empty : {"left out", "agree"}
        What becomes of a slice without a value because a mask is empty. "left out" of the mean. "agree", as
        Yazdekhasty 2020 counts: two empty masks have the best value (1, a distance of 0), one empty mask has
        0 (its distances are left out).
    """
    rows = [row for some in network.rows.values() for row in some]
    counts = network.counts(rows, output)
    if metric == "assd":
        distances = [mm for row in rows if row.get(output) for mm in row[output]["assd_by_slice"]]
        values = [math.nan if mm is None else float(mm) for mm in distances]
    else:
        values = [math.nan if c is None else overlaps(c)[metric] for c in counts]
    known = [(value, c) for value, c in zip(values, counts, strict=True) if c is not None]
    chosen = [(value, c) for value, c in known if not infected or c.tp + c.fn]
    without = sum(math.isnan(value) for value, _ in chosen)
    if empty == "agree":
        chosen = [(_agreed(value, c, metric), c) for value, c in chosen]
    kept = [value for value, _ in chosen if not math.isnan(value)]
    sd = float(np.std(kept, ddof=1)) if len(kept) > 1 else math.nan
    return Figure(float(np.mean(kept)) if kept else math.nan, sd, len(kept), without)


def over_all(network: Network, output: str) -> float:
    """Return the Dice over all slices of all patients at once."""
    counts = (c for rows in network.rows.values() for c in network.counts(rows, output))
    return pooled(list(counts), "dice")


def _agreed(value: float, c: Counts, metric: str) -> float:
    """Give a slice without a value the best one if both masks are empty, and 0 if only one is."""
    if not math.isnan(value):
        return value
    both = c.tp + c.fp + c.fn == 0
    if metric == "assd":
        return 0.0 if both else math.nan
    return float(both)


def _averages(network: Network, output: str) -> dict[str, Any]:
    return {
        "pooled": over_all(network, output),
        "slice": asdict(by_slice(network, output)),
        "infected slice": asdict(by_slice(network, output, infected=True)),
        "slice, empty agree": asdict(by_slice(network, output, empty="agree")),
    }


def _averages_table(networks: Sequence[Network]) -> str:
    rows = []
    for network in networks:
        row = [network.recipe, network.protocol, number_text(network.mean("lesion", "dice").mean)]
        row.append(number_text(over_all(network, "lesion")))
        row.append(_figure(by_slice(network, "lesion", infected=True)))
        row.append(_figure(by_slice(network, "lesion")))
        row.append(_figure(by_slice(network, "lesion", empty="agree")))
        rows.append(row)
    heads = ["Network", "Protocol", "By patient", "Pooled", "By infected slice"]
    heads += ["By slice, empty ones left out", "By slice, empty ones agree"]
    note = (
        "The same predictions, averaged over other things. In brackets the slices that the mean is taken "
        "over and, after a semicolon, those whose two masks are empty. The last column is how "
        "Yazdekhasty 2020 counts."
    )
    return section("Lesion Dice by what it is averaged over", note, heads, rows)


def _leak_table(whole: Sequence[Network], mixed: Sequence[Network]) -> str:
    """By slice beside by patient, with the warning; also where only one of the two was run."""
    if not mixed:
        return ""
    partner = {network.recipe: network for network in whole}
    rows = []
    for other in mixed:
        network = partner.get(other.recipe)
        folds = f"{len(other.records)} of {len(other.records[0]['folds'])}"
        row = [other.recipe, folds, "–" if network is None else mean_text(network.mean("lesion", "dice"))]
        row.append(mean_text(other.mean("lesion", "dice")))
        row.append("–" if network is None else difference_text(difference(other, network)))
        known = [other] if network is None else [network, other]
        row.append(" → ".join(number_text(over_all(n, "lesion")) for n in known))
        row.append(" → ".join(number_text(by_slice(n, "lesion", infected=True).value) for n in known))
        rows.append(row)
    heads = ["Network", "Folds by slice", "Split by patient", "Split by slice", "Difference (the leak)"]
    heads += ["Pooled", "By infected slice"]
    note = f"**{LEAK}** Lesion Dice pooled over each patient's slices that were kept out, in both."
    return section("Split by slice, as in the papers, beside split by patient", note, heads, rows)


def _figure(figure: Figure) -> str:
    return f"{number_text(figure.value)} ({figure.n}; {figure.empty})"


def draw_boxes(networks: Sequence[Network], path: Path) -> None:
    """Draw the Dice by patient of lungs and lesions: median, quartiles, range, and the patients as dots.

    Parameters
    ----------
    networks : sequence of Network
    path : Path
        Picture to write; its ending chooses the format.

    Raises
    ------
    JobError
        If there is nothing to draw, matplotlib is not installed, or the picture cannot be written.
    """
    if not networks:
        raise JobError("There are no stored runs to draw: train a network first.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise JobError(
            "The figure needs matplotlib, which is not installed here: install napari-covseg[docs]."
        ) from error
    figure = Figure(figsize=(10, 1.2 + 0.5 * len(networks)), layout="constrained")
    names = [
        network.recipe + ("" if network.protocol == "patient" else f" (by {network.protocol})")
        for network in networks
    ]
    places = range(len(networks), 0, -1)
    for axes, output, title in zip(
        figure.subplots(1, 2, sharey=True), ("lungs", "lesion"), ("lungs", "lesions"), strict=True
    ):
        columns = [
            [dice for dice in network.by_patient(output, "dice").values() if math.isfinite(dice)]
            for network in networks
        ]
        axes.boxplot(columns, positions=list(places), orientation="horizontal", widths=0.6, whis=(0, 100))
        for place, column in zip(places, columns, strict=True):
            axes.plot(column, [place] * len(column), "o", color="C0", alpha=0.5, markersize=4)
        axes.set(xlabel=f"Dice by patient, {title}")
        axes.set_yticks(list(places), names)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise JobError(f"{path} cannot be written ({error}): choose another name.") from error


if __name__ == "__main__":
    main()
