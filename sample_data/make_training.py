"""Write phantoms to train on, as `volumes` (docs/training.md): ten slices each, every other one healthy.

python sample_data/make_training.py [--folder sample_data/training] [--seeds 1000 1019]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from make_phantom import write
from phantom import phantom


def main() -> None:
    """Write those that are not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).with_name("training"))
    parser.add_argument("--seeds", type=int, nargs=2, default=(1000, 1019), metavar=("FIRST", "LAST"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(given.seeds[0], given.seeds[1] + 1):
        if (given.folder / f"phantom {seed}").is_dir():
            continue
        made = phantom(seed, (10, 256, 256), (26.0, 1.4, 1.4), lesions=seed % 2 == 0)
        with tempfile.TemporaryDirectory(dir=given.folder) as part:  # a folder is there whole or not at all
            write(Path(part) / "made", made)
            os.replace(Path(part) / "made", given.folder / f"phantom {seed}")


if __name__ == "__main__":
    main()
