"""Print how far the colours of labels and states lie from each other, for whoever sees them.

    python benchmarks/palette.py            a table: the nearest two of each palette
    python benchmarks/palette.py --all      every two of them

A distance is CIEDE2000, of the colours as they are and as they look to somebody without the green
(deuteranopia) or the red (protanopia) cones, after Machado, Oliveira and Fernandes, "A Physiologically-based
Model for Simulation of Color Vision Deficiency" (2009), severity 1. In grey it is the difference of CIE
lightness, 0-100. Lungs are tinted over the grey of lung tissue as the viewer does it.
"""

from __future__ import annotations

import argparse
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_covseg.labels import LESIONS, LUNGS
from napari_covseg.panels.correct.review_strip import COLOURS as STATES
from napari_covseg.panels.layers import LUNGS_OPACITY

Colour = tuple[float, float, float]
TISSUE: Colour = (85, 85, 85)
"""−850 HU in the lung window, sRGB."""
SIMULATED: dict[str, npt.NDArray[np.float64]] = {
    "full colour": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
"""What is done to linear sRGB."""
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def tint(colour: Colour) -> Colour:
    """Return a lung's colour as it is drawn over lung tissue."""
    mixed = LUNGS_OPACITY * np.array(colour) + (1 - LUNGS_OPACITY) * np.array(TISSUE)
    return (float(mixed[0]), float(mixed[1]), float(mixed[2]))


def pairs() -> dict[str, dict[tuple[str, str], tuple[Colour, Colour]]]:
    """Return by palette the colours that are seen beside each other, by their names."""
    lesions = {label.name: label.colour for label in LESIONS}
    lungs = {label.name: label.colour for label in LUNGS}
    states = {state.name.lower(): colour for state, colour in STATES.items()}
    within = {"lesions": lesions, "lungs": lungs, "states of slices": states}
    found = {
        palette: {(one, other): (colours[one], colours[other]) for one, other in combinations(colours, 2)}
        for palette, colours in within.items()
    }
    found["outlines on lungs"] = {
        (one, other): (lesions[one], tint(lungs[other])) for one, other in product(lesions, lungs)
    }
    return found


def distances(one: Colour, other: Colour) -> dict[str, float]:
    """Return how far two sRGB colours, 0-255, lie apart: CIEDE2000, and in grey by lightness."""
    linear = _linear(np.array([one, other]) / 255)
    apart = {}
    for name, matrix in SIMULATED.items():
        first, second = rgb2lab(_encoded(linear @ matrix.T))
        apart[name] = float(deltaE_ciede2000(first, second))
    grey = _encoded(np.repeat((linear @ LUMINANCE)[:, None], 3, axis=1))
    first, second = rgb2lab(grey)
    return apart | {"grey": abs(float(first[0] - second[0]))}


def least() -> dict[str, dict[str, tuple[float, tuple[str, str]]]]:
    """Return by palette and by who looks the least distance, and between which two it is."""
    found = {}
    for palette, known in pairs().items():
        apart = {names: distances(*colours) for names, colours in known.items()}
        found[palette] = {
            sight: min((by_sight[sight], names) for names, by_sight in apart.items())
            for sight in next(iter(apart.values()))
        }
    return found


def _linear(srgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _encoded(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


def main() -> None:
    """Print the distances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every two, not only the nearest")
    if parser.parse_args().all:
        for palette, known in pairs().items():
            for names, colours in known.items():
                apart = (f"{sight} {value:.1f}" for sight, value in distances(*colours).items())
                print(f"{palette}: {' and '.join(names)}: {', '.join(apart)}")
        return
    for palette, by_sight in least().items():
        for sight, (value, names) in by_sight.items():
            print(f"{palette:18} {sight:13} {value:5.1f}  {' and '.join(names)}")


if __name__ == "__main__":
    main()
