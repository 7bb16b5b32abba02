"""Take the pictures of the tutorial from the real window, with the sample case only.

Run with a display, or under xvfb: ``xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_pictures.py``.

With ``--states`` it takes others, to look whether anything is cut off or cannot be read: each step in turn
with slices of every state, a scan that is refused, curves and a proposal; no model runs. ``--theme light``
and, on a screen of 1920 × 1200, ``--scale 1.5`` show the same otherwise. Name a folder outside of the
repository.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
SIZE = (1280, 800)
COLOURS = 256  # of a picture; the window has few, and the files stay small


def main() -> None:
    """Tell the tutorial's story and take a picture at each of its marks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a model file instead of the shipped model")
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--states", action="store_true", help="each step with every state, instead")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--scale", default="1", help="how large everything is drawn")
    arguments = parser.parse_args()
    os.environ["QT_SCALE_FACTOR"] = arguments.scale
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COVSEG_WORKSPACE"] = str(Path(folder) / "workspace.zarr")
        os.environ["COVSEG_PREFERENCES"] = str(Path(folder) / "preferences.json")
        os.environ["COVSEG_MODELS"] = str(Path(folder) / "models")
        story = Story(arguments.out, arguments.model, arguments.theme)
        story.show_states() if arguments.states else story.tell()


class Story:
    """One viewer on its way through the tutorial."""

    def __init__(self, out: Path, model: str | None, theme: str = "dark") -> None:
        import napari
        from napari.settings import get_settings

        get_settings().appearance.theme = theme
        self.out = out
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*SIZE)
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
        self.workbench = self.dock.workbench
        self.session = self.dock.session
        if model:
            self.dock.segment.install_model(model)

    def tell(self) -> None:
        """Open, label, correct, export."""
        import numpy as np

        self.viewer.open_sample("napari-covseg", "phantom")
        self.wait(lambda: self.session.case is not None)
        case = self.session.case
        self.picture("scan")

        self.dock.segment.run.click()
        self.wait(lambda: np.count_nonzero(case.review) >= len(case.review) // 6)
        self.picture("run")
        self.wait(lambda: not self.session.busy_with)
        most = int(np.argmax((case.live["lesions"] > 0).sum((1, 2))))
        self.viewer.dims.set_current_step(0, most)
        self.read_at(*np.argwhere(case.live["lesions"][most])[0])
        self.picture("done")
        self.picture("workbench")

        self.open_only(1)
        if self.dock.triage.asked():  # where there are models that have learned from CT
            self.dock.triage.run.click()
            self.wait(lambda: not self.session.busy_with)
            self.dock.triage.heat.setChecked(True)
            self.picture("triage")
            self.dock.triage.heat.setChecked(False)

        self.open_only(3)
        self.correct(most)
        self.picture("correct")

        self.open_only(5)
        self.learn()
        self.picture("learn")
        self.dock.learn.proposal.discard.click()

        self.open_only(6)
        self.dock.export.path.setText("exports/phantom")
        self.picture("export")
        self.viewer.close()

    def show_states(self) -> None:
        """Show each step, with slices of every state."""
        import numpy as np

        from napari_covseg.cases.case import Review
        from napari_covseg.jobs.events import ModelProposed, TrainingStep
        from napari_covseg.panels.learn.learn_step import scores_text

        self.viewer.open_sample("napari-covseg", "phantom")
        self.wait(lambda: self.session.case is not None)
        case, lesions = self.session.case, self.session.layers.labels["lesions"]
        case.review[:] = np.arange(len(case.review)) % len(Review)
        self.session.mark_changed(range(len(case.review)))
        middle = len(case.review) // 2
        self.viewer.dims.set_current_step(0, middle)
        self.viewer.layers.selection.active = lesions
        self.workbench.correction.paint("paint")
        for x in (150, 160, 170):
            lesions.paint((middle, 150, x), 2)
        self.read_at(150, 160)
        curves = self.dock.learn.curves
        curves.show()
        for step in range(1, 21):
            dice = {"lungs": 0.95, "ground-glass": 0.6 + step / 100} if step % 5 == 0 else None
            curves.add(TrainingStep(step, 20, 1.0 / step, step / 2, dice))
        scores = {"held-out": {"before": {"lungs": 0.95, "ground-glass": 0.61}, "after": {"lungs": 0.94}}}
        scores["held-out"]["after"]["ground-glass"] = 0.7
        sentence = "better on what was held out, by more than its noise; paints 7 % less there: look at it."
        proposal = ModelProposed("covseg-1", "covseg", scores, True, sentence)
        self.dock.learn.proposal.scores.setText(scores_text(proposal))
        self.dock.learn.proposal.show()
        refusal = "phantom may be no chest CT: most of it is air. It was not labelled."
        self.dock.segment._reflect_refusal(refusal)
        for index, name in enumerate(("scan", "triage", "segment", "correct", "history", "learn", "export")):
            self.open_only(index)
            self.picture(name)
        self.viewer.close()

    def open_only(self, chosen: int) -> None:
        """Fold all steps away but one."""
        for index, section in enumerate(self.dock.sections):
            if section.isExpanded() != (index == chosen):
                section.toggleButton().click()

    def correct(self, z: int) -> None:
        """Paint the dense part of a finding in the range of consolidation, and accept slices around it."""
        import numpy as np

        from napari_covseg.edit.hu_range import PRESETS

        self.workbench.reviewing.stay = True
        correction, lesions = self.workbench.correction, self.session.layers.labels["lesions"]
        self.viewer.layers.selection.active = lesions
        for beside in (z - 8, z - 4, z + 4):
            self.viewer.dims.set_current_step(0, beside)
            self.workbench.reviewing.accept()
        self.viewer.dims.set_current_step(0, z)
        found = lesions.data[z] > 0
        dense = found & (self.session.case.voxels[z] > -300)
        y, x = (int(v) for v in np.median(np.argwhere(dense if dense.any() else found), axis=0))
        correction.set_range(True, PRESETS["consolidation"])
        correction.paint("paint")
        correction.choose_label(3)
        correction.brush_mm = 18
        for step in range(-5, 6):
            lesions.paint((z, y, x + step), 3)

    def learn(self) -> None:
        """Correct some slices by the truth that a phantom has, and let the model learn from them."""
        import numpy as np

        sys.path.insert(0, str(Path(__file__).parents[1] / "sample_data"))
        from make_phantom import SAMPLE_GRID, phantom

        case, layers = self.session.case, self.session.layers
        self.workbench.correction.set_range(False)
        truth = phantom(*SAMPLE_GRID).lesions
        many = np.argsort((truth > 0).sum((1, 2)))[::-1][:40:6]
        for z in many:
            index = np.nonzero((truth[z] > 0) != (case.live["lesions"][z] > 0))
            index = (np.full(len(index[0]), z), *index)
            layers.write("lesions", index, case.live["lesions"][index], truth[index], "brush")
        self.dock.learn.start.click()
        self.wait(lambda: not self.workbench.learning.running)
        rest = time.monotonic() + 15  # until three slices are there from both models
        self.wait(lambda: time.monotonic() > rest)

    def read_at(self, y: int, x: int) -> None:
        """Put the cursor over a voxel of the slice on screen."""
        image = self.session.scan_image()
        self.viewer.cursor.position = image.data_to_world((self.session.slice_on_screen, y, x))

    def picture(self, name: str) -> None:
        """Save the window, when what moves has come to rest."""
        from PIL import Image

        rest, rounds = time.monotonic() + 0.6, iter(range(40))  # on a busy machine a round takes long
        self.wait(lambda: next(rounds, None) is None and time.monotonic() > rest)
        pixels = self.viewer.window.screenshot(canvas_only=False, flash=False)
        small = Image.fromarray(pixels[..., :3]).quantize(
            COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        small.save(self.out / f"{name}.png", optimize=True)

    @staticmethod
    def wait(until: Callable[[], bool], seconds: float = 1200) -> None:
        """Let the window live until something has happened."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                raise SystemExit("The tutorial's story got stuck.")
            QApplication.processEvents()
            time.sleep(0.005)


if __name__ == "__main__":
    main()
