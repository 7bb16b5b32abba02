"""The phantom's skeleton: ribs, spine, breastbone, collarbones, shoulder blades, upper arms."""

from __future__ import annotations

import numpy as np

from phantom.shapes import Array, Grid, Tube, paint
from phantom.thorax import Patient, turn

MARROW, CORTEX = 170.0, 620.0
_RIB_PITCH = 0.098  # distance of two ribs as a share of the lungs' height


def paint_skeleton(image: Array, patient: Patient, grid: Grid, cage: Array, middle: Array) -> None:
    """Paint all bones, in place.

    Parameters
    ----------
    image : ndarray of float32, shape of the grid
        HU.
    patient : Patient
    grid : Grid
    cage : ndarray
        Signed distance in mm to the inner wall of the chest.
    middle : ndarray
        The patient's noise of 14 mm on the grid.
    """
    _paint_ribs(image, patient, grid, cage, middle)
    _paint_blades(image, patient, grid, cage, middle)
    for bone in _long_bones(patient):
        boxes = [tube.near(grid, 4) for tube in bone]
        box = tuple(
            slice(min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes)) for axis in range(3)
        )
        part = grid.crop((box[0], box[1], box[2]))
        if 0 in part.shape:
            continue
        distance = np.min([tube.distance(part) for tube in bone], axis=0)
        _bone(image[box], part, distance, 520.0, middle[box])
    _paint_spine(image, patient, grid, middle)


def _bone(image: Array, grid: Grid, distance: Array, cortex: float, middle: Array) -> None:
    """Paint a bone: marrow with a hard shell of about 2 mm, in place."""
    paint(image, grid.cover(distance), cortex)
    paint(image, grid.cover(distance + 2.2), MARROW + 45 * middle)


def _long_bones(patient: Patient) -> list[list[Tube]]:
    """Breastbone, collarbones and upper arms, each as tubes that touch."""
    h, w, d = patient.height, patient.wide, patient.deep
    levels = np.array([0.36, 0.60, 0.72, 0.80]) * h
    depth = np.array([-99.0, -84.0, -72.0, -62.0]) * d
    spread = np.array([0.8, 0.9, 1.2, 1.9])
    bones = [
        [
            Tube(np.stack([levels, depth + 0.02 * offset**2, offset * spread], 1), np.full(4, 5.2))
            for offset in (-10.5, -7.0, -3.5, 0.0, 3.5, 7.0, 10.5)
        ]
    ]
    for s in (-1.0, 1.0):
        lift = 0.0 if patient.arms_down else 14.0
        clavicle = [
            [0.84 * h, -57 * d, 24 * s],
            [0.93 * h, -52 * d, 80 * s],
            [1.02 * h + lift, -18, 150 * s * w],
        ]
        bones.append([Tube(np.array(clavicle), np.array([8.0, 5.5, 6.5]))])
        head = [1.0 * h, 20.0, 168 * s * w]
        far = [-0.6 * h, 30.0, 215 * s * w] if patient.arms_down else [1.6 * h, -10.0, 195 * s * w]
        bones.append(
            [
                Tube(np.array([head, head]), np.array([23.0, 23.0])),
                Tube(np.array([head, far]), np.array([15.0, 11.0])),
            ]
        )
    return bones


def _paint_blades(image: Array, patient: Patient, grid: Grid, cage: Array, middle: Array) -> None:
    """Shoulder blades: shells that follow the cage behind, thick at the outer edge, with a spine above."""
    levels = grid.box((0.48 * patient.height, 0, -1e4), (1.04 * patient.height, 1e4, 1e4))
    part = grid.crop(levels)
    if 0 in part.shape:
        return
    height, around, wall = part.z / patient.height, turn(part), cage[levels]
    inner = np.interp(height, [0.48, 0.6, 1.0], [0.24, 0.19, 0.17]).astype(np.float32)
    outer = np.interp(height, [0.48, 0.62, 0.85, 1.04], [0.26, 0.36, 0.43, 0.43]).astype(np.float32)
    along = np.clip((around - inner) / (outer - inner), 0, 1)
    lift = 17 + 9 * along**2 + 14 * np.clip(height - 0.8, 0, 1) * along
    thick = 1.6 + 2.6 * along**4 + 1.2 * (along < 0.06)
    plate = np.maximum(np.abs(wall - lift) - thick, np.maximum(inner - around, around - outer) * 300)
    ridge = np.abs(height - 0.87 - 0.09 * along) * patient.height - 4.5
    spine = np.maximum(
        np.maximum(np.abs(wall - lift - 11 * along) - 4 - 9 * along, ridge), (inner - around) * 300
    )
    spine = np.maximum(spine, (around - outer) * 300)
    _bone(image[levels], part, np.asarray(np.minimum(plate, spine), np.float32), 540.0, middle[levels])


def _paint_ribs(image: Array, patient: Patient, grid: Grid, cage: Array, middle: Array) -> None:
    """Ribs are oblique rings on the cage: high at the spine, low in front, cartilage at the end."""
    zs, ys, xs = np.nonzero((cage > -1) & (cage < 15) & (grid.z < 1.02 * patient.height))
    if not zs.size:
        return
    z, y, x = grid.z[zs, 0, 0], grid.y[0, ys, 0], grid.x[0, 0, xs]
    around = np.arctan2(np.abs(x), y + 6) / np.pi  # 0 at the spine, 1 at the sternum
    pitch = np.float32(_RIB_PITCH * patient.height)
    drop = np.float32(0.44 * patient.height) * np.sin(
        np.clip(around, 0, 0.85) * np.pi / 1.7
    ) ** 1.3 - 12 * np.clip(around - 0.8, 0, 1)
    number = (0.99 * patient.height - z - drop) / pitch + 1  # 1 is the first rib
    nearest = np.round(number)
    dz = (number - nearest) * pitch
    dr = cage[zs, ys, xs] - 6.5
    distance = np.sqrt(dr**2 + (dz * 0.62) ** 2) - 4.1
    shown = (nearest >= 1) & (nearest <= 12) & (around < np.where(nearest > 10, 0.55, 0.93)) & (around > 0.06)
    cover = np.where(shown, np.clip(0.5 - distance / grid.width, 0, 1), 0)
    gristle = np.clip((around - 0.74) / 0.03, 0, 1)
    hard = CORTEX * (1 - gristle) + 110 * gristle
    soft = (MARROW + 60 + 50 * middle[zs, ys, xs]) * (1 - gristle) + 90 * gristle
    inner = np.clip(0.5 - (distance + 1.7) / grid.width, 0, 1)
    value = hard * (1 - inner) + soft * inner
    old = image[zs, ys, xs]
    image[zs, ys, xs] = old + cover * (value - old)


def _paint_spine(image: Array, patient: Patient, grid: Grid, middle: Array) -> None:
    """Vertebral bodies and discs, arch, processes and the canal."""
    box = grid.box((-1e4, -30, -55), (1e4, 120, 55))
    part = grid.crop(box)
    if 0 in part.shape:
        return
    view, noise = image[box], middle[box]
    size = np.interp(part.z / patient.height, [-0.5, 0, 1, 1.3], [1.15, 1.08, 0.86, 0.72]).astype(np.float32)
    y, x = (part.y - patient.spine(part.z)) / size, part.x / size
    phase = np.mod(part.z / np.float32(0.1 * patient.height) + 0.3, 1)
    disc = np.clip((np.abs(phase - 0.5) - 0.38) / 0.06, 0, 1)
    body = (
        np.sqrt((x * (0.86 + 0.1 * (y > 8))) ** 2 + y**2)
        - 15.5
        + 1.5 * disc
        - 1.5 * (1 - disc) * (np.abs(phase - 0.5) > 0.3)
    )
    pedicle = np.clip((0.28 - np.abs(phase - 0.62)) / 0.05, 0, 1)
    arch = np.abs(np.sqrt((x * 0.95) ** 2 + (y - 24) ** 2) - 12.5) - 2.6 + 4 * (1 - pedicle) * (y < 28)
    reach = np.abs(x) - 12
    cross = np.maximum(np.abs(y - 27 - 0.28 * reach) - 3.8, np.abs(reach - 11) - 12) + 12 * (1 - pedicle)
    spinous = np.maximum(np.abs(x) - 2.8, np.abs(y - 46 - 8 * (phase - 0.5)) - 12) + 3 * (
        np.abs(phase - 0.35) > 0.3
    )
    rim = np.minimum(np.minimum(arch, cross), spinous)
    paint(view, part.cover(rim), 480.0)
    paint(view, part.cover(rim + 2.4), MARROW + 60 + 50 * noise)
    paint(view, part.cover(body), 95 * disc + 480 * (1 - disc))
    paint(view, part.cover(body + 2) * (1 - disc), MARROW + 40 * noise)
    paint(view, part.cover(np.sqrt(x**2 + ((y - 23) * 1.15) ** 2) - 8.5), 22.0)
    paint(view, part.cover(np.sqrt(x**2 + ((y - 23) * 1.25) ** 2) - 4.2), 42.0)
