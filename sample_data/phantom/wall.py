"""The phantom's chest wall, and what surrounds the body: arms, clothes, table."""

from __future__ import annotations

import numpy as np

from phantom.shapes import Array, Grid, paint
from phantom.thorax import Patient, turn

FAT, MUSCLE = -104.0, 52.0


def paint_wall(
    image: Array, patient: Patient, grid: Grid, body: Array, cage: Array, coarse: Array, middle: Array
) -> None:
    """Paint skin, fat, muscle and mediastinal fat inside the body, in place.

    Muscles lie on the cage, thick behind and at the shoulders; planes of fat between
    them follow the zero crossings of smooth noise.
    """
    height = grid.z / np.float32(patient.height)
    around = turn(grid)

    def bump(middle_turn: float, width: float) -> Array:
        return np.asarray(np.exp(-(((around - middle_turn) / width) ** 2)), np.float32)

    upper = np.clip((height - 0.42) / 0.28, 0, 1).astype(np.float32)
    shoulder = np.clip((height - 0.86) / 0.12, 0, 1).astype(np.float32)
    # beside the spine, under the shoulder blade, the breast muscle; then the whole shoulder
    thick = 13 + 22 * bump(0.10, 0.09) + 6 * bump(0.35, 0.2)
    thick = thick + upper * (34 * bump(0.33, 0.14) + 15 * bump(0.78, 0.13)) + 70 * shoulder
    thick = thick * (1 + 0.16 * coarse)
    under = 4 + np.float32(max(patient.fat + 4, 2)) * (0.75 + 0.5 * bump(0.2, 0.3)) - 3 * shoulder
    meat = np.maximum(cage - thick, body + under + 1.0 * middle)
    # sheets of fat between the layers of muscle, and a few across them
    layer = np.abs(np.mod(cage - 12 + 5 * coarse + 1.5 * middle, 15) - 7.5) - 0.5
    across = (np.abs(coarse + 0.25 * middle) - 0.035) * 22
    planes = 1 - (0.6 - 0.3 * shoulder) * grid.cover(np.minimum(layer, across), 2.5) * (cage > 11)
    paint(image, grid.cover(body), FAT + 6 * middle)
    paint(image, grid.cover(np.abs(body + 1.2) - 0.8) * 0.8, 10.0)
    paint(image, grid.cover(meat) * planes * grid.cover(-cage), MUSCLE + 5 * middle)
    if patient.breasts:
        gland = np.maximum(np.maximum(body + 9, 16 - cage), np.abs(height - 0.42) * 90 - 14 + 9 * middle)
        gland = np.maximum(gland, grid.y + 40 + 0 * cage)
        paint(image, grid.cover(gland, 6) * 0.8, 25.0)
    # the cage holds fat, where nothing else is painted later; above the lungs, muscle
    solid = np.clip((height - 0.84) / 0.1, 0, 1) * np.clip(0.85 + 0.35 * coarse, 0, 1)
    paint(image, grid.cover(cage), FAT + 4 + 8 * middle + solid * (MUSCLE - FAT))


def paint_room(
    image: Array, patient: Patient, grid: Grid, body: Array, coarse: Array, middle: Array, couch: int
) -> None:
    """Paint the arms at the sides, clothes and the table around the body, in place."""
    if patient.arms_down:
        for s in (-1, 1):
            arm = patient.tube((1.0, -10, 170 * s, 46), (0.6, 0, 196 * s, 42), (-0.6, 10, 208 * s, 38))
            box = arm.near(grid, 3)
            part = grid.crop(box)
            if 0 not in part.shape:
                distance = arm.distance(part) + 2 * coarse[box]
                air = grid.crop(box).cover(-body[box])
                paint(image[box], part.cover(distance) * air, FAT)
                paint(image[box], part.cover(distance + 8 + 2 * middle[box]) * air, MUSCLE)
    outside = body > 2
    cloth = np.abs(body - 9 - 5 * coarse - 1.5 * middle) - 0.6
    paint(image, grid.cover(cloth) * outside * (grid.y < 60) * 0.22, -100.0)
    back = np.float32(118 * patient.deep + 0.6 * patient.fat)
    bend = grid.x**2 / np.float32(2 * (420, 900, 620)[couch % 3])
    depth = grid.y - back + bend
    deep = (48, 30, 22)[couch % 3] - 0.7 * bend
    shell = np.minimum(np.abs(depth), np.abs(depth - deep)) - 1.0
    shell = np.maximum(shell, np.abs(grid.x) - 225)
    solid = np.broadcast_to(grid.cover(np.asarray(shell, np.float32)), image.shape) * outside
    paint(image, solid, -180.0)
    foam = grid.cover(np.maximum(-depth, depth - deep)) * outside
    paint(image, np.asarray(foam * (1 - solid), np.float32), -945.0)
    rail = np.maximum(np.abs(grid.x) - 22, np.abs(grid.y - back - deep + bend - 8) - 4)
    paint(image, grid.cover(np.asarray(rail, np.float32)) * outside * (couch % 2), 260.0)
