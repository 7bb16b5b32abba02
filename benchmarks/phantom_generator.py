"""The phantom generator of ``sample_data``, for the benchmarks."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sample_data"))

from phantom import Phantom, phantom

__all__ = ["Phantom", "phantom"]
