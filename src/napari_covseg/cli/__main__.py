"""``python -m napari_covseg.cli`` is ``covseg``."""

from __future__ import annotations

from napari_covseg.cli import app

app(prog_name="covseg")
