"""What COVID-19 does to the phantom's lungs: ground-glass, consolidation, pleural effusion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phantom.shapes import Array, Ball, Grid, Noise, ball, paint
from phantom.thorax import Patient

_GROUND_GLASS_EDGE = 7.0  # half of the width in mm over which a patch fades
_CONSOLIDATION_EDGE = 4.5


@dataclass(frozen=True)
class Focus:
    """One patch: its form, the HU of its ground-glass, and of its dense core if it has one.

    Attributes
    ----------
    form : Ball
    size : float
        Smallest semi-axis in mm.
    glass : float
        HU that fully veiled lung approaches.
    core : float or None
        HU of the consolidation in the middle.
    depth : float
        How far in mm the core stays inside the patch.
    """

    form: Ball
    size: float
    glass: float
    core: float | None
    depth: float


@dataclass(frozen=True)
class Disease:
    """Everything that is ill in one phantom.

    Attributes
    ----------
    foci : tuple of Focus
    fluid : tuple of (float, float)
        Right and left: thickness at the base and height of the effusion in mm; 0 for none.
    texture : Noise or None
        Of about 20 mm; frays the edges of the patches.
    """

    foci: tuple[Focus, ...] = ()
    fluid: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))
    texture: Noise | None = None


def draw_disease(
    rng: np.random.Generator,
    patient: Patient,
    points: npt.NDArray[np.float64],
    depth: npt.NDArray[np.float64],
) -> Disease:
    """Draw patches, mostly under the pleura, behind and below, and effusions.

    Parameters
    ----------
    rng : numpy Generator
    patient : Patient
    points : ndarray, shape (n, 3)
        (z, y, x) in mm of places in the lungs.
    depth : ndarray, shape (n,)
        Their distance to the pleura in mm.
    """
    weight = np.exp(-depth / 11) * (0.15 + 1 / (1 + np.exp(-points[:, 1] / 16)))
    weight *= 1.25 - points[:, 0] / patient.height
    weight = np.maximum(weight, 1e-9)
    if rng.random() < 0.3:  # one-sided disease is common early
        weight[points[:, 2] * rng.choice([-1, 1]) > 0] *= 0.05
    count = int(rng.integers(4, 13))
    chosen: Iterable[int] = (
        rng.choice(len(points), size=min(count, len(points)), replace=False, p=weight / weight.sum())
        if len(points)
        else []
    )
    foci = []
    dense = rng.random() < 0.65
    for i in chosen:
        size = float(np.clip(rng.lognormal(np.log(16), 0.42), 6, 34))
        inward = np.array([0.1 * rng.normal(), -points[i, 1] + 0.2 * rng.normal(), -points[i, 2]])
        form = ball(points[i], size * np.array([1.0, rng.uniform(1.1, 1.9), rng.uniform(1.1, 1.7)]), inward)
        core = float(rng.uniform(-60, 45)) if dense and rng.random() < 0.38 else None
        foci.append(
            Focus(form, size, float(rng.uniform(-690, -540)), core, size * float(rng.uniform(0.25, 0.6)))
        )
    fluid = [
        (float(rng.uniform(12, 46)), float(rng.uniform(70, 150))) if rng.random() < 0.35 else (0.0, 0.0)
        for _ in range(2)
    ]
    low, high = (-20.0, -110.0, -150.0), (patient.height + 20, 95.0, 150.0)
    return Disease(tuple(foci), (fluid[0], fluid[1]), Noise(rng, 9, low, high))


def paint_disease(
    image: Array, disease: Disease, grid: Grid, lungs: Array, coarse: Array, middle: Array
) -> npt.NDArray[np.uint8]:
    """Veil and fill the lung in place, before vessels are painted, and return the truth.

    Parameters
    ----------
    image : ndarray, shape of the grid
        HU of the healthy lung.
    disease : Disease
    grid : Grid
    lungs : ndarray
        Signed distance to the lungs in mm.
    coarse, middle : ndarray
        The patient's noise on the grid.

    Returns
    -------
    ndarray of uint8
        2 where ground-glass has half its density, 3 where consolidation has.
    """
    truth = np.zeros(grid.shape, np.uint8)
    if disease.texture is None:
        return truth
    frayed = 5.5 * disease.texture(grid) + 2.0 * middle
    inside = grid.cover(lungs)
    for focus in disease.foci:
        box = focus.form.near(grid, 18)
        part = grid.crop(box)
        if 0 in part.shape:
            continue
        distance = focus.form.distance(part) + frayed[box]
        veil = _smooth(distance, _GROUND_GLASS_EDGE) * inside[box]
        lattice = 70 * np.clip((0.25 - np.abs(middle[box])) / 0.25, 0, 1)
        paint(image[box], veil, np.maximum(image[box], focus.glass + lattice + 30 * coarse[box]))
        truth[box][(veil > 0.5) & (truth[box] < 2)] = 2
        if focus.core is not None:
            ragged = distance + focus.depth + 3 * middle[box]
            fill = _smooth(ragged, _CONSOLIDATION_EDGE) * inside[box]
            paint(image[box], fill, np.maximum(image[box], focus.core + 22 * middle[box] + 25 * coarse[box]))
            truth[box][fill > 0.5] = 3
    return truth


def _smooth(distance: Array, edge: float) -> Array:
    t = np.clip(0.5 - distance / (2 * edge), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def fluid_distance(disease: Disease, grid: Grid, lungs: Array, cage: Array, coarse: Array) -> Array | None:
    """Signed distance in mm to the effusion: a crescent on the back wall, thick at the base; None if dry."""
    if not any(thick for thick, _ in disease.fluid):
        return None
    (right, right_top), (left, left_top) = disease.fluid
    thick = np.where(grid.x < 0, right, left).astype(np.float32)
    top = np.where(grid.x < 0, max(right_top, 1), max(left_top, 1)).astype(np.float32)
    fall = np.clip(1 - grid.z / top, -0.3, 1.3)
    behind = np.clip((grid.y - 4) / 45, 0, 1)
    layer = thick * fall * behind * (1 + 0.12 * coarse)
    return np.asarray(np.maximum(lungs, -cage - layer + 2 * (thick <= 0) + 40 * (layer <= 0)), np.float32)
