"""The phantom's heart, great vessels, oesophagus and trachea, and the lungs that they leave room for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phantom.shapes import Array, Ball, Box, Grid, Shape, Tube
from phantom.thorax import CAGE_BACK, CAGE_FRONT, Patient

# Width in mm over which the surfaces that bound the lungs blend into one another.
BLEND = 3.5
FAR = 6 * BLEND
WALL = 38.0  # HU of the walls of airways and oesophagus


@dataclass(frozen=True)
class Organ:
    """A part of the mediastinum: its shape, HU, and the margin in mm that it keeps from the lungs.

    Without a value it only keeps the lungs away (what lies there is painted as bone or muscle).
    What rests on the diaphragm ends there.
    """

    shape: Shape
    value: float | None
    margin: float = 2.0
    rests: bool = False


def _grown(shape: Ball, by: float) -> Ball:
    return Ball(shape.centre, shape.radii + by, shape.turn)


def mediastinum(patient: Patient) -> list[Organ]:
    """Heart, great vessels, oesophagus, trachea and what lies about the spine, in painting order."""
    return _heart_and_spine(patient) + _great_vessels(patient) + _between(patient) + _airways(patient)


def _heart_height(patient: Patient) -> float:
    """Height of the middle of the heart, as a share of the lungs' height."""
    return patient.domes[1] / patient.height + 0.06


def _heart_and_spine(patient: Patient) -> list[Organ]:
    p, blood, beat = patient, patient.blood, patient.heart
    heart = _heart_height(p)
    levels = np.linspace(-0.6, 1.5, 15)
    ventricles = p.ball((heart, -67, 26), (58 * beat, 40 * beat, 41 * beat), (-0.5, -0.45, 0.72))
    atrium = p.ball((heart + 0.02, -60, -14), (36 * beat, 34 * beat, 29 * beat))
    return [
        Organ(p.tube(*[(h, 0, 0, 17) for h in levels]), None, 1),
        Organ(p.tube(*[(h, 24, 0, 17) for h in levels]), None, 0),
        Organ(p.tube(*[(h, 68, -17, 31) for h in levels]), None, 0),
        Organ(p.tube(*[(h, 68, 17, 31) for h in levels]), None, 0),
        Organ(_grown(ventricles, 2), -90, 4, rests=True),
        Organ(_grown(atrium, 2), -90, 4, rests=True),
        Organ(ventricles, blood + 4, rests=True),
        Organ(atrium, blood, rests=True),
        Organ(p.ball((heart + 0.11, -40, 2), (20, 19, 37)), blood, rests=True),
    ]


def _great_vessels(patient: Patient) -> list[Organ]:
    p, blood = patient, patient.blood
    heart = _heart_height(p)
    base = p.domes[1] / p.height
    return [
        Organ(
            p.tube((-0.6, -22, 3, 10), (0.1, -24, 9, 11), (0.3, -19, 18, 12), (0.68, -15, 22, 12)),
            blood + 2,
            2,
        ),
        Organ(
            p.tube(
                (heart + 0.08, -62, -6, 15),
                (0.64, -54, -13, 15),
                (0.72, -44, -4, 14),
                (0.735, -30, 12, 13),
                (0.68, -15, 22, 12),
            ),
            blood + 2,
            2,
        ),
        Organ(p.tube((heart + 0.1, -70, 16, 14), (0.56, -50, 20, 13), (0.57, -30, 42, 10)), blood, 2),
        Organ(p.tube((0.55, -48, 18, 12), (0.545, -42, -18, 11), (0.535, -32, -44, 9)), blood, 2),
        Organ(
            p.tube((heart, -54, -26, 11), (0.66, -47, -29, 9), (0.82, -50, -26, 8), (0.92, -46, -30, 7)),
            blood,
            2,
        ),
        Organ(p.tube((0.78, -54, -24, 7), (0.84, -56, 4, 6), (0.92, -46, 30, 6)), blood, 2),
        Organ(p.tube((base - 0.4, -32, -20, 12), (base, -40, -24, 12), (heart, -48, -24, 12)), blood, 2),
        Organ(
            p.tube((0.73, -42, -6, 6), (0.84, -44, -12, 6), (1.0, -40, -26, 5), (1.5, -30, -32, 4)), blood, 2
        ),
        Organ(
            p.tube((0.74, -36, 5, 5), (0.88, -40, 16, 4.5), (1.0, -36, 26, 4), (1.5, -30, 32, 4)), blood, 2
        ),
        Organ(
            p.tube((0.73, -28, 14, 5), (0.86, -26, 24, 5), (0.98, -30, 40, 5), (0.97, -38, 90, 4)), blood, 2
        ),
    ]


def _between(patient: Patient) -> list[Organ]:
    """Oesophagus, azygos vein, fat and lymph nodes."""
    p, blood = patient, patient.blood
    return [
        Organ(
            p.tube(
                (-0.1, -30, 14, 9), (0.15, -24, 8, 8), (0.5, -21, 4, 7), (0.9, -20, 5, 6.5), (1.5, -20, 3, 6)
            ),
            WALL,
            2,
        ),
        Organ(p.tube((0.0, -16, -9, 3.5), (0.6, -17, -10, 4), (0.64, -40, -26, 4)), blood, 1),
        Organ(p.ball((1.1, -42, -18), (22, 13, 10)), 85, 1),
        Organ(p.ball((1.1, -42, 18), (22, 13, 10)), 85, 1),
        Organ(p.ball((0.55, -42, -2), (12, 10, 12)), 35, 1),
        *[Organ(p.ball((0.52, -31, s * 47), (17, 10, 11)), 10, 0) for s in (-1, 1)],
    ]


def _airways(patient: Patient) -> list[Organ]:
    p = patient
    trachea = [(1.6, -40, 0, 9.5), (1.0, -37, 0, 9.5), (0.62, -33, 3, 9.5)]
    return [
        Organ(p.tube(*trachea), WALL, 2),
        Organ(p.tube((0.63, -33, 3, 8.5), (0.58, -33, -20, 7.5), (0.52, -32, -38, 6.5)), WALL, 2),
        Organ(p.tube((0.63, -33, 3, 8), (0.57, -31, 26, 7), (0.52, -30, 44, 6)), WALL, 2),
    ]


def air_tubes(patient: Patient) -> list[Tube]:
    """The lumen of the trachea and of both main bronchi."""
    p = patient
    return [
        p.tube((1.6, -40, 0, 8), (1.0, -37, 0, 8), (0.62, -33, 3, 8.2)),
        p.tube((0.63, -33, 3, 7), (0.58, -33, -20, 6.3), (0.52, -32, -38, 5.2)),
        p.tube((0.63, -33, 3, 6.2), (0.57, -31, 26, 5.8), (0.52, -30, 44, 4.8)),
    ]


def near_organs(organs: list[Organ], grid: Grid) -> list[tuple[Organ, Box, Array]]:
    """Return each organ that a grid meets, with its box and the signed distance in mm there."""
    found = []
    for organ in organs:
        box = organ.shape.near(grid, FAR)
        part = grid.crop(box)
        if 0 not in part.shape:
            found.append((organ, box, organ.shape.distance(part)))
    return found


def lung_distance(
    patient: Patient, grid: Grid, cage: Array, diaphragm: Array, near: list[tuple[Organ, Box, Array]]
) -> Array:
    """Signed distance in mm to the lungs, fluid in the pleural space included, shape of the grid.

    Everything that is not lung pushes it back, and neighbours blend: fat fills the gaps
    between great vessels as it does in a body. `near` holds the distance to each organ in
    its box.
    """
    k = np.float32(BLEND)

    def push(distance: Array) -> Array:
        return np.asarray(np.exp(np.clip(-distance / k, -30, 12)), np.float32)

    top = np.asarray(patient.height, np.float32)
    y_top = float(np.mean([patient.level(c, top) for c in (CAGE_FRONT, CAGE_BACK)])) + 8
    apex = patient.height - ((np.abs(grid.x) - 44) ** 2 + (grid.y - y_top) ** 2) / 75 - grid.z
    total = push(-cage) + push(diaphragm) + push(np.asarray(apex / 1.3, np.float32))
    for organ, box, distance in near:
        total[box] += push(distance - np.float32(organ.margin))
    middle = grid.box((-1e4, -1e4, -60), (1e4, 1e4, 60))
    part = grid.crop(middle)
    half = np.interp(part.z / patient.height, [0.5, 0.7, 0.8, 0.9, 1.0], [3, 7, 15, 24, 30]).astype(
        np.float32
    )
    total[middle] += push(np.abs(part.x + 2 - 5 * (part.y < -40)) - half)
    return np.asarray(k * np.log(total), np.float32)
