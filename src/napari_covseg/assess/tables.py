"""Networks side by side as Markdown for people, and as plain values for machines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from napari_covseg.assess.comparison import LEAK, PLAIN, Difference, Mean, Network, difference, interval
from napari_covseg.networks.catalogue import CATALOGUE

_METRICS = (
    "jaccard",
    "sensitivity",
    "specificity",
    "precision",
    "mcc",
    "mae",
    "assd",
    "hd95",
    "surface_dice",
)
_HEADS = {
    "jaccard": "Jaccard",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "mcc": "MCC",
    "mae": "MAE %",
    "assd": "ASSD px",
    "hd95": "HD95 px",
    "surface_dice": "Surface Dice (2 px)",
}


def network_tables(networks: Sequence[Network], wanted: Sequence[str] = ()) -> str:
    """Return the tables of cross-validated networks as Markdown.

    Parameters
    ----------
    networks : sequence of Network
        From `comparison.read_networks`.
    wanted : sequence of str
        Networks that are named as not trained if they have no runs; the catalogue's by default.
    """
    by_patient = under(networks, "patient")
    parts = [
        _main_table(by_patient, "By patient"),
        _labels_table(by_patient),
        _metrics_table(by_patient),
        _cases_table(by_patient),
        _paired_table(by_patient),
        _main_table(under(networks, "slice"), "Split by slice, as in the papers", f"**{LEAK}** "),
        _sources_table(under(networks, "source")),
    ]
    missing = not_trained(networks, wanted)
    parts.append(f"Not trained: {', '.join(missing)}." if missing else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def network_record(networks: Sequence[Network], wanted: Sequence[str] = ()) -> dict[str, Any]:
    """Return the same for machines: what `covseg assess --show --json` prints."""
    by_patient = under(networks, "patient")
    best = _best(by_patient)
    paired = [
        {"network": network.recipe, "less": best.recipe, **asdict(difference(network, best))}
        for network in by_patient
        if best is not None and network is not best
    ]
    record = {
        "networks": [_network_record(network) for network in networks],
        "paired": paired,
        "sources": [row for network in under(networks, "source") for row in _sources(network)],
        "not_trained": not_trained(networks, wanted),
    }
    return {key: without_nan(value) for key, value in record.items()}


def not_trained(networks: Sequence[Network], wanted: Sequence[str] = ()) -> list[str]:
    """Return those wanted, by default all of the catalogue, of which there is no run by patient or source."""
    there = {network.recipe for network in networks if network.protocol != "slice"}
    return [name for name in wanted or [entry.name for entry in CATALOGUE] if name not in there]


def _network_record(network: Network) -> dict[str, Any]:
    figures = {
        output: {metric: asdict(network.mean(output, metric)) for metric in ("dice", *_METRICS)}
        for output in network.outputs
    }
    first = network.records[0]
    return {
        "recipe": network.recipe,
        "protocol": network.protocol,
        "folds": [record["fold"] for record in network.records],
        "of_folds": first["folds"],
        "parameters": first["parameters"],
        "gmac_256": first["gmac_256"],
        "lungs_from": list(network.lungs_from),
        **{
            key: sorted({record[key] for record in network.records})
            for key in ("size", "steps", "batch", "device")
        },
        "seconds": network.seconds,
        **figures,
        "patients": {
            name: {
                "slices": count,
                **{out: network.by_patient(out, "dice").get(name, math.nan) for out in network.outputs},
            }
            for name, count in network.slices().items()
        },
    }


def _main_table(networks: Sequence[Network], title: str, warning: str = "") -> str:
    rows = []
    for network in networks:
        first = network.records[0]
        folds = f"{len(network.records)} of {len(first['folds'])}"
        rows.append(
            [
                network.recipe,
                f"{first['parameters'] / 1e6:.3f}",
                f"{first['gmac_256']:.2f}",
                f"{network.of('size')}²" + (", cropped" if network.lungs_from else ""),
                network.of("steps"),
                f"{network.seconds / 60:.1f}",
                network.of("device"),
                folds,
                mean_text(network.mean("lungs", "dice")),
                mean_text(network.mean("lesion", "dice")),
            ]
        )
    heads = ["Network", "Parameters (M)", "GMAC at 256²", "Slices", "Steps", "Minutes per fold", "Device"]
    heads += ["Folds", "Lungs Dice", "Lesion Dice"]
    note = (
        "Dice pooled over each patient's slices; mean ± sd over the patients (95 % bootstrap interval). "
        "Minutes are by the clock, with pauses and beside other work. "
    )
    return section(title, warning + note + _lungs_used(networks), heads, rows)


def _lungs_used(networks: Sequence[Network]) -> str:
    """Say whose lungs had a part in the figures: never those of the truth."""
    crops = [
        f"Slices of {network.recipe} are cropped to the lungs that {', '.join(network.lungs_from)} found."
        for network in networks
        if network.lungs_from
    ]
    rest = "Other slices are whole" if crops else "Slices are whole"
    return " ".join([*crops, f"{rest}: no lungs of the truth help."])


def _labels_table(networks: Sequence[Network]) -> str:
    """All labels of networks that tell findings apart."""
    several = [network for network in networks if network.outputs != PLAIN]
    labels = list(dict.fromkeys(name for network in several for name in network.outputs if name != "lungs"))
    rows = [[network.recipe, *(_label(network, name) for name in labels)] for network in several]
    note = (
        "Dice by patient, of patients who have the label; after a semicolon how many, and what is painted "
        "of it, in per cent of the slices, in patients who are known not to have it. Pixels of which "
        "nobody has said what they are count nowhere."
    )
    return section("Each label", note, ["Network", *labels], rows)


def _label(network: Network, output: str) -> str:
    mean, (false, *_), n = network.mean(output, "dice"), *_painted(network, output)
    there = f"{mean_text(mean)}; {mean.n}" if mean.n else "–"
    return f"{there}, {number_text(false, '.2f')} % in {n}" if n else there


def _painted(network: Network, output: str) -> tuple[tuple[float, float, float], int]:
    """Return the mean and interval of what is painted where there is nothing, and of how many patients."""
    values = np.array(list(network.painted(output).values()))
    return interval(values), len(values)


def _sources(network: Network) -> list[dict[str, Any]]:
    """Return, for each source that was left out and each label that is known there, the figures."""
    found = []
    for fold in [record["fold"] for record in network.records]:
        tested = network.of_folds([fold])
        for output in tested.outputs:
            if tested.by_patient(output, "dice"):
                (false, low, high), n = _painted(tested, output)
                figures = {"mean": false, "low": low, "high": high, "n": n}
                row = {"network": network.recipe, "source": fold, "label": output}
                found.append({**row, "dice": asdict(tested.mean(output, "dice")), "painted": figures})
    return found


def _sources_table(networks: Sequence[Network]) -> str:
    rows = []
    for source in (row for network in networks for row in _sources(network)):
        dice, painted = Mean(**source["dice"]), source["painted"]
        row = [source["network"], source["source"], source["label"], str(dice.n), mean_text(dice)]
        false = "{mean:.2f} ({low:.2f}–{high:.2f})".format(**painted) if painted["n"] else "–"
        rows.append([*row, str(painted["n"]), false])
    heads = ["Network", "Source left out", "Label", "Patients", "Dice", "Without it", "Painted there, %"]
    note = (
        "Taught on all other sources. Dice pooled over each patient's slices; mean ± sd over the patients "
        "who have the label (95 % bootstrap interval). Of patients who are known not to have it, what is "
        "painted of it in per cent of their slices."
    )
    return section("Leave one source out", note, heads, rows)


def _metrics_table(networks: Sequence[Network]) -> str:
    rows = [
        [network.recipe, *(_short_mean(network.mean("lesion", metric), metric) for metric in _METRICS)]
        for network in networks
    ]
    note = (
        "Mean ± sd over the patients. Distances in pixels of 256², slice by slice. A patient without a "
        "value, because a mask is empty, is left out; how many are is said beside the figure."
    )
    heads = ["Network", *(_HEADS[metric] for metric in _METRICS)]
    return section("The lesions in other figures", note, heads, rows)


def _cases_table(networks: Sequence[Network]) -> str:
    slices = {name: count for network in networks for name, count in network.slices().items()}
    patients = sorted(slices)
    rows = [
        [
            network.recipe,
            *(number_text(network.by_patient("lesion", "dice").get(name, math.nan)) for name in patients),
        ]
        for network in networks
    ]
    heads = ["Network", *(f"{name} ({slices[name]})" for name in patients)]
    return section("Lesion Dice of each patient", "With the number of slices.", heads, rows)


def _paired_table(networks: Sequence[Network]) -> str:
    best = _best(networks)
    if best is None:
        return ""
    rows = []
    for network in networks:
        if network is not best:
            less = difference(network, best)
            rows.append([network.recipe, str(less.n), difference_text(less), number_text(less.p, ".3g")])
    note = (
        "Lesion Dice less that of the best network with all folds, patient by patient, with its 95 % "
        "bootstrap interval; p of Wilcoxon's signed-rank test, not corrected for the number of comparisons."
    )
    return section(f"Against {best.recipe}", note, ["Network", "Patients", "Difference", "p"], rows)


def _best(networks: Sequence[Network]) -> Network | None:
    """Return the first network with all folds; the first of all if none has; networks are sorted."""
    return next((network for network in networks if network.complete), networks[0] if networks else None)


def under(networks: Sequence[Network], protocol: str) -> list[Network]:
    """Return the networks that were run under a protocol."""
    return [network for network in networks if network.protocol == protocol]


def mean_text(mean: Mean) -> str:
    """Return mean ± sd (interval), or a dash."""
    if not mean.n:
        return "–"
    return f"{mean.mean:.3f} ± {number_text(mean.sd)} ({mean.low:.3f}–{mean.high:.3f})"


def _short_mean(mean: Mean, metric: str) -> str:
    digits = ".2f" if metric in ("mae", "assd", "hd95") else ".3f"
    left_out = f" ({mean.empty} left out)" if mean.empty else ""
    return f"{number_text(mean.mean, digits)} ± {number_text(mean.sd, digits)}{left_out}"


def difference_text(change: Difference) -> str:
    """Return a difference with its interval, or a dash."""
    return f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f})" if change.n else "–"


def number_text(value: float, form: str = ".3f") -> str:
    """Return a number, or a dash for NaN."""
    return f"{value:{form}}" if math.isfinite(value) else "–"


def section(title: str, note: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table under its title; nothing if it has no rows."""
    if not rows:
        return ""
    return "\n\n".join(part for part in (f"### {title}", note, table(heads, rows)) if part)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; short rows are filled up."""
    filled = [[*row, *[""] * (len(heads) - len(row))] for row in rows]
    lines = [heads, ["---"] * len(heads), *filled]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def without_nan(value: Any) -> Any:
    """Return the same with null where there is no value: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
