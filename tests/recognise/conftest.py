from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from recognisers import make_bytes, make_card

from napari_covseg.models.file import Model, load_model


@pytest.fixture
def model(as_if_taught: Callable[[Any], None]) -> Callable[..., Model]:
    """Return what makes a loaded model with random weights, and a card with these values."""
    return lambda **values: load_model(make_bytes(make_card(**values), as_if_taught), "cpu")
