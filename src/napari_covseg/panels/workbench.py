"""What all steps of one viewer share: its session, and whoever works on it."""

from __future__ import annotations

from collections import Counter
from functools import partial
from weakref import WeakKeyDictionary

from napari import Viewer
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QCoreApplication, QObject, QTimer
from superqt.utils import ensure_main_thread

from napari_covseg.panels.background import Jobs
from napari_covseg.panels.correct.correction import Correction
from napari_covseg.panels.correct.measuring import Measuring
from napari_covseg.panels.correct.refining import Refining
from napari_covseg.panels.correct.reviewing import Reviewing
from napari_covseg.panels.correct.tools import TOOLS
from napari_covseg.panels.keys import KEYS, Action, Hold, Keys
from napari_covseg.panels.learn.learning import Learning
from napari_covseg.panels.letters import OrientationLetters
from napari_covseg.panels.mouse import RadiologyMouse
from napari_covseg.panels.napari_private import open_notifications, qt_window
from napari_covseg.panels.preferences import preferred
from napari_covseg.panels.scan.opening import ClosingWindow, Opening
from napari_covseg.panels.segment.labelling import Labelling
from napari_covseg.panels.session import Session
from napari_covseg.panels.triage.recognising import Recognising

WORKBENCHES: WeakKeyDictionary[Viewer, Workbench] = WeakKeyDictionary()


def workbench_of(viewer: Viewer) -> Workbench:
    """Return what all steps in a viewer share, made when the first of them is opened."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hands plugins a proxy
    if viewer not in WORKBENCHES:
        WORKBENCHES[viewer] = Workbench(viewer)
    return WORKBENCHES[viewer]


class Workbench(QObject):
    """Makes the session of a viewer and its controllers, each with what it uses, and ends them.

    Parameters
    ----------
    viewer : Viewer
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.session = session = Session(viewer)
        self.jobs = Jobs(session)
        self.opening = Opening(session, self.jobs)
        self.labelling = Labelling(session, self.jobs)
        self.recognising = Recognising(session, self.jobs)
        self.letters = OrientationLetters(viewer)
        self.mouse = RadiologyMouse(viewer, session.scan_image)
        self.mouse.enabled = preferred("radiology_mouse", False)
        self.correction = Correction(session)
        self.reviewing = Reviewing(session)
        self.measuring = Measuring(session, self.correction)
        self.learning = Learning(session, self.jobs, self.labelling)
        self.refining = Refining(session, self.jobs, self.correction, self.learning, self.labelling)
        self.keys = Keys(viewer, self._actions())
        self.jobs.child_died.connect(session.show_death)
        self.reviewing.accepted.connect(self.learning.count_accepted)
        self.learning.changed.connect(self._on_model)
        session.case_changed.connect(self._on_case_changed)
        window = qt_window(viewer)
        window.destroyed.connect(self.close)  # napari tells nobody that a viewer closes
        self._closing = ClosingWindow(self.opening, window)
        QCoreApplication.instance().aboutToQuit.connect(self.close)
        notification_manager.notification_ready.connect(self._on_notification)
        self.opening.known_layers()

    def close(self) -> None:
        """Save what is open, end the child, and let the viewer go."""
        session = self.session
        if session.closed:
            return
        session.closed = True
        notification_manager.notification_ready.disconnect(self._on_notification)
        self.jobs.close()
        self.opening.close(at_any_cost=True)
        self.mouse.enabled = False
        WORKBENCHES.pop(session.viewer, None)

    @ensure_main_thread
    def _on_notification(self, _: object) -> None:
        QTimer.singleShot(0, self._open_notifications)  # once napari, which is told after us, shows it

    def _open_notifications(self) -> None:
        if not self.session.closed:
            open_notifications(self.session.viewer)

    def _on_case_changed(self) -> None:
        case, layers = self.session.case, self.session.layers
        self.letters.visible = case is not None and case.case.intensity == "HU"
        if layers is not None:
            self.keys.bind([layers.scan, *layers.labels.values()])
        else:
            self.keys.unbind()

    def _on_model(self) -> None:
        if self.learning.model is not None:
            self.correction.expect(self.learning.model.card.outputs)

    def _actions(self) -> dict[str, Action | Hold]:
        """Return what each key does while a case is open."""
        correction, reviewing = self.correction, self.reviewing

        def put_away() -> None:
            self.measuring.switch(False)
            correction.put_away()

        named: dict[str, Action | Hold] = {
            "next": reviewing.go_next,
            "back": reviewing.go_back,
            "accept": reviewing.accept,
            "accept the rest": reviewing.accept_rest,
            "reopen": reviewing.reopen,
            "hide": (reviewing.hide, reviewing.unhide),
            "compare": reviewing.compare,
            "paint": partial(correction.paint, "paint"),
            "erase": partial(correction.paint, "erase"),
            "measure": self.measuring.toggle,
            "refine": self.refining.refine,
            "range": lambda: correction.set_range(not correction.limited),
            "volume": lambda: correction.set_volume(not correction.volume),
            "smaller": lambda: correction.scale_brush(-1),
            "larger": lambda: correction.scale_brush(1),
            "put away": put_away,
        }
        bound = [(KEYS[name], action) for name, action in named.items()]
        bound += [(known.key, partial(correction.use, known.name)) for known in TOOLS]
        bound += [(str(value), partial(correction.choose_label, value)) for value in range(1, 5)]
        taken = Counter(key for key, _ in bound)
        if doubled := [key for key, count in taken.items() if count > 1]:
            raise ValueError(f"two actions have the key {', '.join(doubled)}")
        return dict(bound)
