"""How a fine-tuning goes: loss and Dice on held-out slices, as curves that grow."""

from __future__ import annotations

import math
from typing import Any

from qtpy.QtWidgets import QHBoxLayout, QSizePolicy, QWidget

from napari_covseg.jobs.events import TrainingStep
from napari_covseg.panels.step import Paragraph

HEIGHT = 110
COLOURS = {"lungs": (86, 156, 214), "lesion": (250, 190, 60), "loss": (220, 220, 220)}
OTHER = (225, 60, 100)


class Curves(QWidget):
    """Two plots that follow a fine-tuning; without pyqtgraph, a line of text."""

    def __init__(self) -> None:
        super().__init__()
        self.loss: list[float] = []
        self.steps: list[int] = []
        self.dice: dict[str, list[tuple[int, float]]] = {}
        self.best: int = 0
        self.text = Paragraph(small=True)
        self._plots: dict[str, Any] = {}
        self._lines: dict[str, Any] = {}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for name in ("loss", "Dice, held out"):
            plot = _plot(name)
            if plot is None:
                row.addWidget(self.text)
                break
            row.addWidget(plot)
            self._plots[name] = plot

    def clear(self) -> None:
        """Begin anew."""
        self.loss.clear()
        self.steps.clear()
        self.dice.clear()
        self.best = 0
        self._lines.clear()
        for plot in self._plots.values():
            plot.clear()

    def add(self, told: TrainingStep) -> None:
        """Let the curves grow by a step."""
        if told.loss is not None:
            self.steps.append(told.step)
            self.loss.append(told.loss)
            self._draw("loss", "loss", self.steps, self.loss)
        if told.best:
            self.best = told.step
        for output, value in (told.held_out or {}).items():
            if math.isfinite(value):
                points = self.dice.setdefault(output, [])
                points.append((told.step, value))
                steps, values = zip(*points, strict=True)
                self._draw("Dice, held out", output, list(steps), list(values))
        self.text.setText(f"Step {told.step} of {told.steps}")

    def _draw(self, plot: str, name: str, x: list[int], y: list[float]) -> None:
        if plot not in self._plots:
            return
        if name not in self._lines:
            colour = COLOURS.get(name, OTHER)
            marks = {"symbol": "o", "symbolSize": 4, "symbolBrush": colour} if plot != "loss" else {}
            self._lines[name] = self._plots[plot].plot(
                pen={"color": colour, "width": 1.5}, name=name, **marks
            )
        self._lines[name].setData(x, y)


def _plot(title: str) -> Any:
    try:
        import pyqtgraph
    except ImportError:  # it comes with the extra `desktop`; without it there are numbers
        return None
    plot = pyqtgraph.PlotWidget(background=(32, 35, 41))
    plot.setFixedHeight(HEIGHT)
    plot.setMinimumWidth(0)
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    plot.setTitle(title, size="8pt")
    plot.setMouseEnabled(x=False, y=False)
    plot.hideButtons()
    plot.setMenuEnabled(False)
    plot.getAxis("left").setWidth(30)
    if title != "loss":
        plot.addLegend(offset=(-4, -4), labelTextSize="7pt")
    plot.setToolTip("Goes down while the model learns." if title == "loss" else "Decides which step is kept.")
    return plot
