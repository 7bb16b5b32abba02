"""A new version beside its parent: what was measured, three slices, and the decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_covseg.jobs.events import ModelProposed
from napari_covseg.panels.learn.side_by_side import SideBySide
from napari_covseg.panels.step import Paragraph, button

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session


class Proposal(QWidget):
    """Shows itself while a version waits for a decision.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._learning = session.learning
        self.scores = Paragraph()
        self.scores.setToolTip("Dice before and after, on slices that the model did not learn from.")
        self.slices = SideBySide(session)
        self.keep = button(
            "Keep",
            "Use the new version from now on, and label the scan again with it. "
            "Voxels that you painted or erased, and accepted slices, stay as they are.",
        )
        self.discard = button("Discard", "Go on with the model as it was.")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.scores)
        column.addWidget(self.slices)
        row = QHBoxLayout()
        row.addWidget(self.keep)
        row.addWidget(self.discard)
        column.addLayout(row)
        self.keep.clicked.connect(self._learning.keep)
        self.discard.clicked.connect(self._on_discard)
        self._learning.proposed.connect(self._on_proposed)
        self.hide()

    def reflect(self) -> None:
        """Hide when nothing waits for a decision."""
        if self._learning.proposal is None:
            self.hide()

    def _on_proposed(self, proposal: ModelProposed) -> None:
        self.scores.setText(scores_said(proposal))
        self.show()
        self.slices.compare(proposal)

    def _on_discard(self) -> None:
        self._learning.discard()


def scores_said(proposal: ModelProposed) -> str:
    """Return the scores before and after, and what they speak for, as rich text."""
    rows = []
    for part, scores in proposal.scores.items():
        for output, before in scores["before"].items():
            after = scores["after"].get(output, float("nan"))
            colour = "#80d080" if after >= before else "#e0a030"
            rows.append(
                f"<tr><td>{part}, {output}&nbsp;</td><td>{before:.3f} →&nbsp;</td>"
                f"<td style='color:{colour}'>{after:.3f}</td></tr>"
            )
    verdict = "Keep it" if proposal.recommended else "Better not"
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    return f"<b>{proposal.model_id}</b> beside {proposal.parent}, Dice:{table}{verdict}: {proposal.reason}"
