"""Nothing is asked for by default, and what is asked for is of the findings."""

from __future__ import annotations

from dataclasses import asdict

from napari_covseg.predict.options import PLAIN


def test_nothing_is_asked_for_by_default() -> None:
    assert asdict(PLAIN) == {
        **{"threshold": None, "tta": "card", "also": (), "lungs_from": None, "min_ml": 0.0, "min_pixels": 0},
        **{"uncertainty": False, "anyway": False, "seen_as": ()},
    }
