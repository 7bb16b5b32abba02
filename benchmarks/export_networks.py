"""Whether each network of the catalogue, exported, computes what it does here.

    python benchmarks/export_networks.py [NAME ...] [--format onnx]

Exports each with random weights into a folder that is thrown away, and prints the largest
difference of a logit from PyTorch. Ends with an error if one of them cannot be exported.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from napari_covseg.models.export import FORMATS, export_network
from napari_covseg.networks.build import build_network
from napari_covseg.networks.catalogue import BY_NAME, CATALOGUE, CLASSIFIERS


def main() -> None:
    """Print a row per network."""
    parser = argparse.ArgumentParser(description="Whether each network computes the same once exported.")
    parser.add_argument("names", nargs="*", help="of the catalogue; all by default")
    parser.add_argument("--format", choices=FORMATS, default="onnx")
    arguments = parser.parse_args()
    print(f"{'network':<34} {'max difference':>14} {'MB':>7} {'s':>7}")
    failed = []
    for entry in [BY_NAME[name] for name in arguments.names] or (*CATALOGUE, *CLASSIFIERS):
        torch.manual_seed(0)
        network = build_network(entry.network, entry.classes or ("lungs", "lesion"), entry.settings)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{entry.name}.{arguments.format}"
            try:
                difference = export_network(network, path, arguments.format).max_difference
            except Exception as error:  # the others are still worth a row
                failed.append(entry.name)
                told = " ".join(str(error).split())
                print(f"{entry.name:<34} {type(error).__name__}: {told[:200]}", flush=True)
                continue
            size = path.stat().st_size / 1e6
        print(
            f"{entry.name:<34} {difference:>14.1e} {size:>7.1f} {time.perf_counter() - start:>7.1f}",
            flush=True,
        )
    if failed:
        sys.exit(f"Not exported: {', '.join(failed)}")


if __name__ == "__main__":
    main()
