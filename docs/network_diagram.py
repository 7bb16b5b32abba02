"""Draw a network as SVG: its stages by level, what feeds what, and a legend."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from html import escape

import torch
from network_layout import Place, layout
from network_trace import INPUT, SIZE, Edge, Map, trace

from napari_covseg.networks.build import build_network
from napari_covseg.networks.catalogue import NetworkEntry

PITCH, STEP = 76.0, 66.0  # from column to column and from row to row
WIDTH, HEIGHT = 52.0, 38.0  # of a box
MARGIN = 20.0
LINE = 17.0  # of the legend
COLOURS = {
    INPUT: "#e8e8e8",
    "conv": "#bcd7f0",
    "stem": "#d9d9f3",
    "unit": "#bcd7f0",
    "rib": "#bcd7f0",
    "net": "#bcd7f0",
    "block": "#c4e3c3",
    "dc": "#f8d9a0",
    "ssd": "#f8d9a0",
    "mib": "#f8d9a0",
    "aspp": "#f8d9a0",
    "gate": "#f8d9a0",
    "lesion": "#f3c1bd",
    "lung": "#c4e3c3",
    "merge": "#dcc6ea",
    "head": "#ffffff",
}
DOWN, UP, SAME = "#b2442f", "#2f7d46", "#5a6472"


def draw(entry: NetworkEntry, outputs: Sequence[str] = ("lungs", "lesion")) -> str:
    """Return the diagram of a network of the catalogue."""
    with torch.device("meta"):
        network = build_network(entry.network, outputs, entry.settings)
    places, kinds = layout(entry, network)
    maps, edges = trace(network, [place.stage for place in places])
    first = min(place.column for place in places)
    before = 1.5 if places[0].kind == "net" else 1.0
    start = Place(INPUT, first - before, INPUT, label="slice")
    return "\n".join(_Drawing([start, *places], maps, edges, kinds, entry.title).lines()) + "\n"


class _Drawing:
    """Places on paper."""

    def __init__(
        self, places: list[Place], maps: dict[str, Map], edges: list[Edge], kinds: dict[str, str], title: str
    ) -> None:
        self.places = {place.stage: place for place in places}
        self.maps, self.edges, self.kinds, self.title = maps, edges, kinds, title
        rows = [self.row(place) for place in places]
        columns = [place.column for place in places]
        self.left, self.right, self.lowest = min(columns), max(columns), max(rows)
        self.top = min(rows) - self._highest_arc()
        self.width = 2 * MARGIN + (self.right - self.left) * PITCH + self._box(places[-1])[0] + 40

    def row(self, place: Place) -> float:
        """The level of a place, counted from full resolution."""
        return math.log2(SIZE / self.maps[place.stage].size) if place.row is None else place.row

    def lines(self) -> Iterator[str]:
        """Yield the file's lines."""
        legend = list(self._legend())
        highest = max(self._box(place)[1] for place in self.places.values())
        bottom = self._y(self.lowest) + highest / 2 + 24
        height = bottom + LINE * len(legend) + MARGIN / 2
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {self.width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif">'
        )
        yield f"<title>{escape(self.title)}</title>"
        yield "<defs>"
        for name, colour in (("down", DOWN), ("up", UP), ("same", SAME)):
            yield (
                f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
                f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
            )
        yield "</defs>"
        # a ground of its own, for dark pages
        yield f'<rect width="{self.width:.0f}" height="{height:.0f}" rx="8" fill="#fbfbfb"/>'
        for edge in self.edges:
            yield self._arrow(edge)
        for place in self.places.values():
            yield from self._stage(place)
        for number, (colour, text) in enumerate(legend):
            yield from self._legend_line(bottom + LINE * number, colour, text)
        yield "</svg>"

    def _box(self, place: Place) -> tuple[float, float]:
        if place.kind == "net":
            return 1.5 * PITCH, 1.6 * HEIGHT
        if place.kind == "aspp":
            return 1.2 * WIDTH, 0.75 * HEIGHT
        return max(WIDTH, 8.0 * len(place.label) + 8), HEIGHT

    def _x(self, column: float) -> float:
        return MARGIN + WIDTH / 2 + (column - self.left) * PITCH

    def _y(self, row: float) -> float:
        return MARGIN + HEIGHT / 2 + (row - self.top) * STEP

    def _direction(self, edge: Edge) -> str:
        """Down if the map gets smaller on its way, up if it gets larger."""
        if any("Upsample" in op for op in edge.ops):
            return "up"
        before, after = (self.maps[name].size for name in (edge.source, edge.target))
        target = self.places[edge.target]
        if after > before and "Convolution" in edge.ops:
            return "up"
        if after < before and target.kind not in ("aspp", "ssd"):
            return "down"
        return "same"

    def _between(self, source: Place, target: Place) -> bool:
        """Whether another stage stands between two of the same row."""
        row = self.row(source)
        return any(
            abs(self.row(other) - row) < 0.4 and source.column < other.column < target.column
            for other in self.places.values()
        )

    def _lift(self, source: Place, target: Place) -> float:
        """How high an arc over others rises, in rows."""
        over_box = (self._box(target)[1] / 2 + 12) / STEP
        return max(0.3 + 0.04 * (target.column - source.column), over_box)

    def _highest_arc(self) -> float:
        lifts = [0.0]
        for edge in self.edges:
            source, target = self.places[edge.source], self.places[edge.target]
            if self.row(source) == self.row(target) and self._between(source, target):
                lifts.append(self._lift(source, target) - self.row(source))
        return max(lifts)

    def _arrow(self, edge: Edge) -> str:
        source, target = self.places[edge.source], self.places[edge.target]
        (wide, high), (wide_to, high_to) = self._box(source), self._box(target)
        x, y = self._x(source.column), self._y(self.row(source))
        to_x, to_y = self._x(target.column), self._y(self.row(target))
        left, right = to_x - wide_to / 2, x + wide / 2
        if abs(x - to_x) < 1:  # one over the other
            sign = 1 if to_y > y else -1
            path = f"M{x:.0f} {y + sign * high / 2:.0f}V{to_y - sign * high_to / 2:.0f}"
        elif abs(y - to_y) < 1 and self._between(source, target):
            over = y - STEP * self._lift(source, target)
            shift = 6.0 if target.column - source.column > 2 else 0.0
            path = (
                f"M{x + shift:.0f} {y - high / 2:.0f}V{over:.0f}H{to_x - shift:.0f}V{to_y - high_to / 2:.0f}"
            )
        elif abs(y - to_y) < 1:
            path = f"M{right:.0f} {y:.0f}H{left:.0f}"
        elif target.kind == "aspp" or self.places[edge.target].stage == "pyramid.join":
            middle = (right + left) / 2
            path = f"M{right:.0f} {y:.0f}H{middle:.0f}V{to_y:.0f}H{left:.0f}"
        elif to_y > y:
            path = f"M{x:.0f} {y + high / 2:.0f}V{to_y:.0f}H{left:.0f}"
        else:
            path = f"M{right:.0f} {y:.0f}H{to_x:.0f}V{to_y + high_to / 2:.0f}"
        direction = self._direction(edge)
        colour = {"down": DOWN, "up": UP, "same": SAME}[direction]
        style = f'stroke="{colour}" stroke-width="1.6" marker-end="url(#{direction})"'
        return f'<path d="{path}" fill="none" {style}/>'

    def _stage(self, place: Place) -> Iterator[str]:
        wide, high = self._box(place)
        x, y, one = self._x(place.column), self._y(self.row(place)), self.maps[place.stage]
        yield (
            f'<rect x="{x - wide / 2:.0f}" y="{y - high / 2:.0f}" width="{wide:.0f}" height="{high:.0f}" '
            f'rx="4" fill="{COLOURS[place.kind]}" stroke="#444" stroke-width="1"/>'
        )
        label = place.label or str(one.channels)
        below = "" if place.kind == "aspp" else f"{one.size}²"
        base = y + (4.5 if not below else -1)
        yield (
            f'<text x="{x:.0f}" y="{base:.0f}" text-anchor="middle" font-size="13" font-weight="bold" '
            f'fill="#111">{escape(label)}</text>'
        )
        if below:
            yield (
                f'<text x="{x:.0f}" y="{y + 13:.0f}" text-anchor="middle" font-size="10" '
                f'fill="#333">{below}</text>'
            )

    def _legend(self) -> Iterator[tuple[str, str]]:
        """Yield colour and text of each line; a line that goes on has no colour."""
        texts = [(COLOURS[kind], text) for kind, text in self.kinds.items()]
        texts += [(colour, text) for colour, text in self._ways()]
        for colour, text in texts:
            for number, line in enumerate(textwrap.wrap(text, int((self.width - 70) / 6.4))):
                yield ("" if number else colour), line

    def _ways(self) -> Iterator[tuple[str, str]]:
        """Say what the arrows do, as the graph has it."""
        for direction, colour, words in (("down", DOWN, _shrinking), ("up", UP, _growing)):
            told = {words(edge.ops) for edge in self.edges if self._direction(edge) == direction}
            if told := sorted(one for one in told if one):
                yield colour, "; ".join(told)
        joined = any("Cat" in edge.ops for edge in self.edges)
        yield SAME, "As it is" + ("; where several maps meet, they are concatenated" if joined else "")

    def _legend_line(self, y: float, colour: str, text: str) -> Iterator[str]:
        if colour in (DOWN, UP, SAME):
            name = {DOWN: "down", UP: "up", SAME: "same"}[colour]
            yield (
                f'<path d="M{MARGIN:.0f} {y:.0f}H{MARGIN + 24:.0f}" stroke="{colour}" stroke-width="1.6" '
                f'marker-end="url(#{name})"/>'
            )
        elif colour:
            yield (
                f'<rect x="{MARGIN + 4:.0f}" y="{y - 6:.0f}" width="18" height="12" rx="2" fill="{colour}" '
                'stroke="#444"/>'
            )
        yield f'<text x="{MARGIN + 34:.0f}" y="{y + 4:.0f}" font-size="12" fill="#222">{escape(text)}</text>'


def _shrinking(ops: frozenset[str]) -> str:
    if ops & {"Mm", "Bmm", "UnsafeView"}:
        return "Hybrid pooling: 2×2 maximum beside the lower half of the frequencies, then 1×1"
    if any("MaxPool" in op for op in ops):
        return "2×2 maximum"
    return "Stride 2, in the stage itself"


def _growing(ops: frozenset[str]) -> str:
    if any("UpsampleNearest" in op for op in ops):
        return "Twice the size, nearest neighbour"
    if any("UpsampleBilinear" in op for op in ops):
        return ("1×1 convolution, then b" if "Convolution" in ops else "B") + "ilinear to the skip's size"
    return "2×2 transposed convolution"
