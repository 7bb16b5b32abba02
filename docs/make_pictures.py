"""Take the pictures of the tutorial from the real window, with the sample case only.

Run with a display, or under xvfb: ``xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_pictures.py``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
SIZE = (1280, 800)
COLOURS = 256  # of a picture; the window has few, and the files stay small


def main() -> None:
    """Tell the tutorial's story and take a picture at each of its marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a model file instead of the shipped model")
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COVSEG_WORKSPACE"] = str(Path(folder) / "workspace.zarr")
        Story(arguments.out, arguments.model).tell()


class Story:
    """One viewer on its way through the tutorial."""

    def __init__(self, out: Path, model: str | None) -> None:
        import napari

        self.out = out
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*SIZE)
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
        self.session = self.dock.session
        if model:
            self.dock.segment.add_model(model)

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

        self.correct(most)
        self.picture("correct")

        self.dock.sections[0].toggleButton().click()
        self.dock.sections[2].toggleButton().click()
        self.dock.export.path.setText("exports/phantom")
        self.picture("export")
        self.viewer.close()

    def correct(self, z: int) -> None:
        """Paint the dense part of a finding as consolidation and erase a tip, as a person would."""
        import numpy as np

        lesions = self.session.layers.labels["lesions"]
        self.viewer.layers.selection.active = lesions
        found = lesions.data[z] > 0
        dense = found & (self.session.case.voxels[z] > -300)
        y, x = (int(v) for v in np.median(np.argwhere(dense if dense.any() else found), axis=0))
        lesions.mode, lesions.selected_label, lesions.brush_size = "paint", 3, 7
        for step in range(-5, 6):
            lesions.paint((z, y, x + step), 3)
        top, left = np.argwhere(found)[0]
        lesions.mode = "erase"
        for step in range(4):
            lesions.paint((z, int(top) + step, int(left)), 0)
        lesions.mode = "paint"

    def read_at(self, y: int, x: int) -> None:
        """Put the cursor over a voxel of the slice on screen."""
        image = self.session.scan_image()
        self.viewer.cursor.position = image.data_to_world((self.session.slice_on_screen, y, x))

    def picture(self, name: str) -> None:
        """Save the window, when what moves has come to rest."""
        from PIL import Image

        rest = time.monotonic() + 0.6
        self.wait(lambda: time.monotonic() > rest)
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
