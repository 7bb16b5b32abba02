"""A chest CT that nobody had: a procedural patient in HU with the truth about its lungs and lesions.

Everything is drawn in mm from one seed, so the same seed shows the same patient on any
grid. Nothing in it was measured on, or copied from, a real scan; its sizes and HU are
those of anatomy books.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_covseg.scans import Scan
from phantom.abdomen import paint_abdomen
from phantom.bones import paint_skeleton
from phantom.lesions import Disease, draw_disease, fluid_distance, paint_disease
from phantom.mediastinum import Organ, air_tubes, lung_distance, mediastinum, near_organs
from phantom.scanner import Scanner, draw_scanner
from phantom.shapes import Array, Grid, paint
from phantom.thorax import (
    Patient,
    body_distance,
    cage_distance,
    diaphragm_distance,
    draw_patient,
)
from phantom.trees import Branches, beside, fill, grow
from phantom.wall import paint_room, paint_wall

_SLAB_VOXELS = 3_000_000  # bounds the memory: about 25 float32 fields of this size live at once
_COARSE = 4.5  # mm, of the grid on which trees grow and lesions are placed


@dataclass(frozen=True, eq=False)
class Phantom:
    """A procedural scan and its truth.

    Attributes
    ----------
    scan : Scan
        HU, int16, shape (z, y, x).
    lungs : ndarray of uint8, shape (z, y, x)
        1 right, 2 left. Lesions inside the lungs count as lung, effusion does not.
    lesions : ndarray of uint8, shape (z, y, x)
        2 ground-glass, 3 consolidation, 4 pleural effusion, as in `labels.LESIONS`.
    """

    scan: Scan
    lungs: npt.NDArray[np.uint8]
    lesions: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Scene:
    """All that is drawn before the first voxel."""

    patient: Patient
    organs: list[Organ]
    vessels: Branches
    airways: Branches
    disease: Disease
    gas: float
    couch: int
    breath: float
    scanner: Scanner
    shift: tuple[float, float]


def phantom(
    seed: int = 0,
    shape: Sequence[int] = (64, 256, 256),
    spacing: Sequence[float] = (5.0, 1.4, 1.4),
    lesions: bool = True,
) -> Phantom:
    """Make a chest CT of an adult who does not exist.

    The grid is centred on the chest; with the default size it reaches from the base of
    the neck to the upper abdomen. A smaller extent crops, a larger one shows more air.

    Parameters
    ----------
    seed : int
        Draws the patient, the scanner and the disease; the same seed gives the same voxels.
    shape : sequence of int
        (z, y, x).
    spacing : sequence of float
        (z, y, x) in mm.
    lesions : bool
        Without them the same patient is healthy.

    Returns
    -------
    Phantom

    Raises
    ------
    ValueError
        If `shape` or `spacing` is not three positive numbers.
    """
    if len(shape) != 3 or min(shape) < 1 or len(spacing) != 3 or not all(0 < s < np.inf for s in spacing):
        raise ValueError(
            f"a phantom needs three positive sizes and spacings, not {tuple(shape)} and {tuple(spacing)}"
        )
    nz, ny, nx = (int(n) for n in shape)
    dz, dy, dx = (float(s) for s in spacing)
    scene = _draw_scene(seed, lesions)
    origin = (
        scene.patient.height / 2 - 4 - dz * (nz - 1) / 2,
        scene.shift[0] - dy * (ny - 1) / 2,
        scene.shift[1] - dx * (nx - 1) / 2,
    )
    axes = [
        np.float32(o) + np.float32(s) * np.arange(n, dtype=np.float32)
        for o, s, n in zip(origin, (dz, dy, dx), (nz, ny, nx), strict=True)
    ]
    voxels = np.empty((nz, ny, nx), np.int16)
    lung_truth, lesion_truth = np.zeros((nz, ny, nx), np.uint8), np.zeros((nz, ny, nx), np.uint8)
    whole = Grid(axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :], max(dy, dx, 0.7))
    scanner, halo = scene.scanner, scene.scanner.halo((dz, dy, dx))
    step = max(1, _SLAB_VOXELS // (ny * nx))
    for first in range(0, nz, step):
        last, start = min(first + step, nz), max(first - halo, 0)
        image, lungs, found = _render(scene, whole.slab(start, min(last + halo, nz)))
        keep = slice(first - start, last - start)
        image = scanner.blur(image, (dz, dy, dx))[keep]
        slab = whole.slab(first, last)
        voxels[first:last] = scanner.expose(image, slab, (dz, dy, dx), scene.patient.height, first)
        lung_truth[first:last], lesion_truth[first:last] = lungs[keep], found[keep]
    return Phantom(_scan(voxels, (dz, dy, dx), origin, seed), lung_truth, lesion_truth)


def _scan(
    voxels: npt.NDArray[np.int16],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    seed: int,
) -> Scan:
    shape = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    source = np.diag([*spacing[::-1], 1.0])
    source[:3, 3] = origin[::-1]
    return Scan(
        voxels=voxels,
        spacing=spacing,
        intensity="HU",
        affine=source[:, [2, 1, 0, 3]],
        source_shape=shape,
        source_affine=source,
        name="CovSeg phantom chest CT",
        patient_id=f"phantom-{seed}",
        notes=("A procedural phantom: no person was scanned.",),
    )


def _draw_scene(seed: int, lesions: bool) -> _Scene:
    body, tree, ill, room = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4))
    patient = draw_patient(body)
    organs = mediastinum(patient)
    points, depth = _lung_points(patient, organs)
    vessels, airways = [], []
    for side in (-1, 1):
        own = points[points[:, 2] * side > 0]
        bronchi = grow(tree, own, np.array(patient.place(0.52, -31, 42 * side)), 4.6, max(len(own) // 60, 1))
        airways.append(bronchi)
        vessels.append(beside(bronchi, 2.0, 0.8))
        vessels.append(grow(tree, own, np.array(patient.place(0.53, -33, 40 * side)), 6.3, 3, 0.36))
        vessels.append(grow(tree, own, np.array(patient.place(0.45, -38, 34 * side)), 5.6, 4, 0.36))
    return _Scene(
        patient=patient,
        organs=organs,
        vessels=_join(vessels),
        airways=_join(airways),
        disease=draw_disease(ill, patient, points, depth) if lesions else Disease(),
        gas=float(room.uniform(0, 1)),
        couch=int(room.integers(0, 6)),
        breath=float(room.uniform(-925, -885)),
        scanner=draw_scanner(room),
        shift=(float(room.uniform(2, 16)), float(room.uniform(-7, 7))),
    )


def _join(trees: list[Branches]) -> Branches:
    return Branches(
        *(np.concatenate([getattr(t, name) for t in trees]) for name in ("start", "end", "radius"))
    )


def _lung_points(
    patient: Patient, organs: list[Organ]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Places (z, y, x) in the lungs on a coarse lattice, and their depth under the pleura, both in mm."""
    axes = [
        np.arange(low, high, _COARSE, dtype=np.float32)
        for low, high in ((-10, patient.height + 6), (-110, 100), (-150, 150))
    ]
    grid = Grid(axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :], _COARSE)
    cage = cage_distance(patient, grid)
    inside = (
        lung_distance(patient, grid, cage, diaphragm_distance(patient, grid), near_organs(organs, grid))
        < -1.5
    )
    depth = ndimage.distance_transform_edt(inside, sampling=_COARSE)[inside]
    z, y, x = np.nonzero(inside)
    return np.stack([axes[0][z], axes[1][y], axes[2][x]], 1).astype(float), np.asarray(depth, float)


def _render(scene: _Scene, grid: Grid) -> tuple[Array, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """HU before blur and noise, and the truth, on one slab."""
    p = scene.patient
    coarse, middle = p.coarse(grid), p.middle(grid)
    cage = cage_distance(p, grid) + 1.5 * coarse
    body = body_distance(p, grid, coarse)
    below = diaphragm_distance(p, grid)
    near = near_organs(scene.organs, grid)
    lungs = lung_distance(p, grid, cage, below, near)

    image = np.full(grid.shape, -1000, np.float32)
    paint_room(image, p, grid, body, coarse, middle, scene.couch)
    paint_wall(image, p, grid, body, cage, coarse, middle)
    paint_abdomen(image, p, grid, cage, below, coarse, middle, scene.gas)
    for organ, box, distance in near:
        if organ.value is not None:
            above = grid.cover(-1.0 - below[box]) if organ.rests else 1.0
            paint(image[box], grid.cover(distance) * above, organ.value + 3 * middle[box])
    paint_skeleton(image, p, grid, cage, middle)
    truth = _paint_lungs(image, scene, grid, lungs, coarse, middle)
    fluid = fluid_distance(scene.disease, grid, lungs, cage, coarse)
    wet = np.zeros(grid.shape, bool)
    if fluid is not None:
        paint(image, grid.cover(fluid), 9 + 3 * middle)
        wet = fluid < 0
    air = lungs < 0
    side = np.where(grid.x < 0, 1, 2).astype(np.uint8) * (air & ~wet)
    truth[~air] = 0
    truth[wet] = 4
    return image, side, truth


def _paint_lungs(
    image: Array, scene: _Scene, grid: Grid, lungs: Array, coarse: Array, middle: Array
) -> npt.NDArray[np.uint8]:
    """Parenchyma, disease, vessels, then airways; returns the truth of the disease."""
    p, inside = scene.patient, grid.cover(lungs)
    fine = p.fine(grid)
    # the lung is denser where it is lower, and the patient lies on the back
    tissue = np.float32(scene.breath + 11) + 0.55 * grid.y + 8 * coarse + 5 * middle + 9 * fine
    paint(image, inside, tissue)
    fissure = (grid.z - (0.48 + 0.004 * grid.y) * p.height) / np.hypot(1, 0.004 * p.height) + 5 * coarse
    sheet = grid.cover(np.asarray(np.abs(fissure) - 0.4, np.float32)) * inside
    paint(image, sheet * np.float32(0.3 / grid.width), -500.0)
    truth = paint_disease(image, scene.disease, grid, lungs, coarse, middle)
    paint(image, fill(grid, scene.vessels), p.blood + 0.0)
    bronchi = scene.airways
    paint(image, fill(grid, Branches(bronchi.start, bronchi.end, bronchi.radius * 1.15 + 0.45)), 0.0)
    paint(image, fill(grid, bronchi), -960.0)
    for tube in air_tubes(p):
        box = tube.near(grid, 3)
        part = grid.crop(box)
        if 0 not in part.shape:
            paint(image[box], part.cover(tube.distance(part)), -990.0)
    return truth
