"""What the scan looks like, where a person can correct it, and how the model sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QDialog, QFormLayout, QLabel, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_covseg.errors import CovsegError
from napari_covseg.models.preparation import Preparation, as_shown
from napari_covseg.panels.background import errors_shown
from napari_covseg.panels.learn.learning import Learning
from napari_covseg.panels.session import Session
from napari_covseg.panels.step import (
    ElidedComboBox,
    Paragraph,
    button,
    caption,
    fill,
    row,
    show_in_place,
    warning,
)
from napari_covseg.scans import VALUES, Values
