"""The phantom's upper abdomen: liver, spleen, kidneys, stomach, colon and bowel under the diaphragm."""

from __future__ import annotations

import numpy as np

from phantom.shapes import Array, Grid, Shape, ball, paint
from phantom.thorax import Patient


def paint_abdomen(
    image: Array,
    patient: Patient,
    grid: Grid,
    cage: Array,
    below: Array,
    coarse: Array,
    middle: Array,
    gas: float,
) -> None:
    """Paint liver, spleen, stomach, colon and kidneys under the diaphragm, in place.

    `below` is the height over the diaphragm in mm; `gas` says how full of air stomach and
    colon are, 0 to 1.
    """
    right, left = patient.domes
    w, d, h = patient.wide, patient.deep, patient.height
    inside = np.maximum(below - 6, cage + 1.5)  # up to the lungs, which are painted later
    if inside.min() > 5:
        return
    bowel = np.maximum(inside + 9, (0.75 - coarse - 0.5 * middle) * 14)
    paint(image, grid.cover(bowel) * (grid.z < right - 45), 34 + 10 * middle)
    wind = np.maximum(np.maximum(bowel + 4, grid.y + 25), (1.3 - coarse - 0.6 * middle) * 14)
    paint(image, grid.cover(wind) * (grid.z < right - 60) * (grid.x > -20), -970.0)
    fall = np.clip(right - 25 - grid.z, 0, 200)
    edge = 30 - 0.8 * (grid.y + 45) - 0.0015 * np.clip(grid.y + 60, 0, 200) ** 2 - 0.45 * fall
    liver = np.maximum(inside, (grid.x - edge * w) / 1.4 + 7 * coarse)
    liver = np.maximum(liver, 24 - np.sqrt(grid.x**2 + (grid.y - patient.spine(grid.z)) ** 2))
    ducts = np.clip((0.16 - np.abs(middle + 0.5 * coarse)) / 0.1, 0, 1)
    paint(
        image, grid.cover(liver), 58 - 14 * ducts * (patient.blood < 100) + 25 * ducts * (patient.blood > 100)
    )
    bodies: list[tuple[Shape, float]] = [
        (ball((left - 42, 38 * d, 88 * w), (58, 24, 44), (1.0, -0.3, 0.25)), 50.0),
        (ball((-0.16 * h, 32 * d, -52 * w), (52, 26, 28)), 32.0),
        (ball((-0.1 * h, 34 * d, 54 * w), (52, 26, 28)), 34.0),
    ]
    for shape, value in bodies:
        _paint_inside(image, grid, shape, inside, value, 3 * middle)
    stomach = ball((left - 38, -24 * d, 50 * w), (44, 46, 38), (1.0, -0.4, 0.3))
    colon = ball((left - 62, -58 * d, 92 * w), (26, 30, 22), (1.0, 0.5, 0.0))
    for shape, level, food in ((stomach, -24 * d - 34 + 34 * gas, 24.0), (colon, -200 + 190 * gas, -20.0)):
        box = shape.near(grid, 4)
        part = grid.crop(box)
        if 0 in part.shape:
            continue
        distance = np.maximum(shape.distance(part), inside[box] + 1) + 2.0 * coarse[box] + 1.2 * middle[box]
        paint(image[box], part.cover(distance), 40.0)
        paint(image[box], part.cover(distance + 3.5), food + 16 * middle[box])
        pocket = np.maximum(distance + 3.5, part.y - np.float32(level) + 0 * distance)
        paint(image[box], part.cover(pocket), -985.0)


def _paint_inside(
    image: Array, grid: Grid, shape: Shape, inside: Array, value: float, texture: Array
) -> None:
    box = shape.near(grid, 4)
    part = grid.crop(box)
    if 0 not in part.shape:
        paint(image[box], part.cover(np.maximum(shape.distance(part), inside[box])), value + texture[box])
