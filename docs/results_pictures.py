"""The pictures of the results page: Dice against time, and a box for each network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_covseg.assess.comparison import Network
from napari_covseg.models.card import ModelCard
from napari_covseg.networks.catalogue import CATALOGUE

CHART = {
    "results-pareto": "Lesion Dice by patient against the time for a slice; the line joins those that no "
    "quicker one beats",
    "results-boxes": "Dice of every patient: median, quartiles, range",
}
Point = tuple[str, float, float, float, float]  # name, ms, Dice, and the ends of its interval


def draw_all(
    networks: Sequence[Network], card: ModelCard, times: Sequence[dict[str, Any]], folder: Path
) -> list[str]:
    """Draw what there is something for, remove what there is not, and return the names."""
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # of the same figures the same file
    for name in CHART:
        (folder / f"{name}.svg").unlink(missing_ok=True)
    by_patient = [one for one in networks if one.protocol == "patient"]
    drawn = []
    if by_patient and (points := pareto_points(by_patient, card, times)):
        draw_pareto(points, f"ms per slice ({times[0]['device']})", folder / "results-pareto.svg")
        drawn.append("results-pareto")
    if by_patient:
        import matplotlib

        from network_tables import draw_boxes  # of benchmarks/: make_results.py finds it

        with matplotlib.rc_context({"svg.hashsalt": "boxes"}):
            draw_boxes(networks, folder / "results-boxes.svg")
        drawn.append("results-boxes")
    return drawn


def pareto_points(
    networks: Sequence[Network], card: ModelCard, times: Sequence[dict[str, Any]]
) -> list[Point]:
    """Return time and Dice of the networks that have both, on the first device that was measured."""
    if not times:
        return []
    measured = times[0]["networks"]
    points = []
    for one in networks:
        if one.recipe in measured:
            dice = one.mean("lesion", "dice")
            points.append((one.recipe, measured[one.recipe]["ms"], dice.mean, dice.low, dice.high))
    if card.id in measured:
        scores = card.scores["cross-validation"]
        place = (measured[card.id]["ms"], scores["lesions Dice"], *scores["lesions 95 % interval"])
        points.append((card.id, *place))
    return sorted(points, key=lambda point: point[1])


def front(points: Sequence[Point]) -> list[Point]:
    """Return those, by rising time, that are better than all quicker ones."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point[1], -point[2])):
        if not best or point[2] > best[-1][2]:
            best.append(point)
    return best


def draw_pareto(points: Sequence[Point], label: str, path: Path) -> None:
    """Draw Dice against time; papers by colour, the default model as a star."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    papers = {entry.name: entry.paper for entry in CATALOGUE}
    colours = {paper: f"C{number}" for number, paper in enumerate(dict.fromkeys(papers.values()))}
    with matplotlib.rc_context({"svg.hashsalt": "pareto", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots()
        line = front(points)
        axes.plot([p[1] for p in line], [p[2] for p in line], color="0.75", zorder=1)
        shown: set[str] = set()
        for number, (name, ms, dice, low, high) in enumerate(points):
            paper = papers.get(name, "default model")
            axes.errorbar(
                ms,
                dice,
                [[dice - low], [high - dice]],
                fmt="*" if name not in papers else "o",
                markersize=13 if name not in papers else 6,
                color=colours.get(paper, "black"),
                elinewidth=1,
                alpha=0.85,
                label=None if paper in shown else paper,
            )
            shown.add(paper)
            above = number % 2 == 0
            axes.annotate(
                name,
                (ms, dice),
                (6, 6 if above else -6),
                textcoords="offset points",
                va="bottom" if above else "top",
                fontsize=8,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.2)
        axes.set(xlabel=label, ylabel="lesion Dice by patient (95 % interval)")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
