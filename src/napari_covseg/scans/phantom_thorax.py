"""The phantom's patient: proportions, thoracic cage, diaphragm, mediastinum, and the lungs between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_covseg.scans.phantom_shapes import Array, Ball, Box, Grid, Noise, Shape, Tube, ball, oval

# Outlines along the body for an adult of middle size, in mm; y = 0 is the middle of the
# chest, the height is a share of the lungs' height (0 base, 1 apex). Half-widths, front
# and back of the pleural cavity, then of the body.
_HEIGHT = np.array([-0.60, -0.30, 0.00, 0.15, 0.30, 0.50, 0.65, 0.78, 0.88, 0.96, 1.04, 1.14, 1.25, 1.40])
_CAGE_HALF = np.array([124, 128, 133, 135, 135, 131, 122, 109, 95, 82, 68, 56, 48, 48])
_CAGE_FRONT = np.array([-88, -92, -96, -96, -94, -87, -76, -62, -48, -35, -23, -14, -10, -10])
_CAGE_BACK = np.array([66, 68, 73, 76, 78, 78, 76, 71, 65, 58, 50, 42, 36, 34])
_BODY_HALF = np.array([150, 151, 155, 158, 160, 161, 164, 170, 179, 192, 200, 192, 150, 80])
_BODY_FRONT = np.array([-116, -115, -115, -115, -114, -106, -95, -82, -69, -56, -44, -34, -25, -10])
_BODY_BACK = np.array([102, 102, 104, 107, 110, 113, 113, 110, 105, 99, 91, 82, 72, 60])

# Width in mm over which the surfaces that bound the lungs blend into one another.
BLEND = 3.5
FAR = 6 * BLEND


@dataclass(frozen=True)
class Patient:
    """What is drawn once per seed: sizes in mm or as factors, and the fields of noise.

    Attributes
    ----------
    height : float
        From the deepest sulcus to the apex of the lungs, mm.
    wide, deep : float
        Factors on the cage's width and depth.
    fat : float
        Extra subcutaneous fat, mm.
    domes : tuple of float
        Height of the right and the left dome of the diaphragm, mm.
    blood : float
        HU of the blood; above 100 there is contrast medium.
    breasts : float
        Height of the breasts over the chest wall, mm; 0 for none.
    arms_down : bool
        Arms at the sides rather than above the head.
    coarse, middle, fine : Noise
        Of about 60, 14 and 4 mm.
    """

    height: float
    wide: float
    deep: float
    fat: float
    domes: tuple[float, float]
    blood: float
    breasts: float
    arms_down: bool
    coarse: Noise
    middle: Noise
    fine: Noise

    def level(self, values: npt.NDArray[np.float64], z: Array) -> Array:
        """A column of the outline table at heights z in mm, float32, shape of z."""
        return np.interp(z / self.height, _HEIGHT, values).astype(np.float32)

    def spine(self, z: Array) -> Array:
        """The y in mm of the middle of the vertebral bodies at heights z."""
        return self.level(_CAGE_BACK, z) * np.float32(self.deep) - np.float32(44)

    def place(self, height: float, back: float, left: float) -> tuple[float, float, float]:
        """(z, y, x) in mm of a point at a share of the height, `back` mm behind the spine's middle."""
        z = height * self.height
        return z, float(self.spine(np.float32(z))) + back * self.deep, left * self.wide

    def tube(self, *nodes: tuple[float, float, float, float]) -> Tube:
        """A tube through (height, back, left, radius)."""
        return Tube(np.array([self.place(*n[:3]) for n in nodes]), np.array([n[3] for n in nodes]))

    def ball(
        self,
        at: tuple[float, float, float],
        radii: tuple[float, float, float],
        first: tuple[float, float, float] = (1, 0, 0),
    ) -> Ball:
        """An ellipsoid at (height, back, left)."""
        return ball(self.place(*at), radii, first)


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient: sex, size, position, contrast medium."""
    height = float(rng.uniform(238, 268))
    low, high = (-160.0, -130.0, -190.0), (height + 110, 130.0, 190.0)
    chest = (-10.0, -100.0, -140.0), (height + 10, 85.0, 140.0)
    right = float(rng.uniform(0.31, 0.37)) * height
    return Patient(
        height=height,
        wide=float(rng.uniform(0.93, 1.06)),
        deep=float(rng.uniform(0.93, 1.06)),
        fat=float(rng.uniform(-3, 12)),
        domes=(right, right - float(rng.uniform(4, 16))),
        blood=float(rng.choice([42, 40, 45, 38, 44, 160, 220])),
        breasts=float(rng.choice([0, 0, 18, 28])),
        arms_down=bool(rng.random() < 0.2),
        coarse=Noise(rng, 30, low, high),
        middle=Noise(rng, 7, low, high),
        fine=Noise(rng, 2.2, *chest),
    )


def turn(grid: Grid) -> Array:
    """Direction seen from the middle of the chest: 0 at the spine, 1 at the breastbone, shape (1, ny, nx)."""
    return np.asarray(np.arctan2(np.abs(grid.x), grid.y + 6) / np.pi, np.float32)


def cage_distance(patient: Patient, grid: Grid) -> Array:
    """Signed distance in mm to the inner wall of the chest and abdomen, shape of the grid."""
    front, back = (patient.level(c, grid.z) * np.float32(patient.deep) for c in (_CAGE_FRONT, _CAGE_BACK))
    half = patient.level(_CAGE_HALF, grid.z) * np.float32(patient.wide)
    return oval(grid, (half, (back - front) / 2), (front + back) / 2, 2.35)


def _blend(one: Array, two: Array, width: float) -> Array:
    """Union of two shapes, rounded over `width` mm where they meet; their intersection if it is negative."""
    k = np.float32(width)
    return np.asarray(-k * np.logaddexp(-one / k, -two / k), np.float32)


def body_distance(patient: Patient, grid: Grid, wobble: Array) -> Array:
    """Signed distance in mm to the skin, shape of the grid; `wobble` is the coarse noise there."""
    fat = np.float32(patient.fat)
    front = patient.level(_BODY_FRONT, grid.z) * np.float32(patient.deep) - fat
    back = patient.level(_BODY_BACK, grid.z) * np.float32(patient.deep) + fat * np.float32(0.6)
    half = patient.level(_BODY_HALF, grid.z) * np.float32(patient.wide) + fat
    torso = oval(grid, (half, (back - front) / 2), (front + back) / 2, 2.5) + 2 * wobble
    torso = _blend(torso, grid.y - back + 6, -7)  # lying flattens the back
    if patient.breasts:
        rise = np.exp(-(((grid.z / patient.height - 0.42) / 0.2) ** 2))
        hump = np.exp(-(((np.abs(grid.x) - 78) / 45) ** 2)) * (grid.y < 0)
        torso -= np.float32(patient.breasts) * rise * hump
    top = grid.box((0.8 * patient.height, -200, -150), (1e4, 200, 150))
    part = grid.crop(top)
    if part.z.size:
        depth = np.interp(part.z / patient.height, [0.8, 1.0, 1.1], [20, 50, 56]).astype(np.float32)
        neck = oval(part, (np.full_like(part.z, 60), depth), np.full_like(part.z, 12), 2.1)
        torso[top] = _blend(torso[top], neck, 9)
    return torso


def diaphragm_distance(patient: Patient, grid: Grid) -> Array:
    """Height in mm above the diaphragm, divided by its slope; negative in the abdomen."""
    level = Grid(np.full((1, 1, 1), 0.15 * patient.height, np.float32), grid.y, grid.x, grid.width)
    wall = np.maximum(-cage_distance(patient, level), 0)
    left = grid.x > 0
    y, x = grid.y + 24, grid.x - np.where(left, 66, -66) * np.float32(patient.wide)
    rho = np.sqrt(y * y + x * x) + np.float32(1e-3)
    behind, before = np.clip(y / rho, 0, 1), np.clip(-y / rho, 0, 1)
    inward = np.clip(np.where(left, -x, x) / rho, 0, 1)
    dome = np.where(left, patient.domes[1], patient.domes[0]).astype(np.float32)
    depth = dome * (0.64 + 0.34 * behind - 0.38 * before - 0.36 * inward**2)
    u = rho / (rho + wall)
    surface = dome - depth * (0.25 * u**2 + 0.75 * u**5) + 2.5 * patient.coarse(level)
    slope = np.ones_like(surface)
    if min(surface.shape[1:]) > 1:
        dy = np.gradient(surface[0], grid.y.ravel(), axis=0)
        dx = np.gradient(surface[0], grid.x.ravel(), axis=1)
        slope[0] = np.sqrt(1 + dy**2 + dx**2)
    return np.asarray((grid.z - surface) / np.minimum(slope, 6), np.float32)


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


def mediastinum(patient: Patient) -> list[Organ]:
    """Heart, great vessels, oesophagus, trachea and what lies about the spine, in painting order."""
    p, blood, wall = patient, patient.blood, 38.0
    base = p.domes[1] / p.height
    heart = base + 0.06
    levels = np.linspace(-0.6, 1.5, 15)
    organs = [
        Organ(p.tube(*[(h, 0, 0, 17) for h in levels]), None, 1),
        Organ(p.tube(*[(h, 24, 0, 17) for h in levels]), None, 0),
        Organ(p.tube(*[(h, 68, -17, 31) for h in levels]), None, 0),
        Organ(p.tube(*[(h, 68, 17, 31) for h in levels]), None, 0),
        Organ(p.ball((heart, -68, 24), (60, 42, 43), (-0.5, -0.45, 0.72)), -90, 4, rests=True),
        Organ(p.ball((heart + 0.02, -62, -14), (38, 36, 31)), -90, 4, rests=True),
        Organ(p.ball((heart, -67, 26), (58, 40, 41), (-0.5, -0.45, 0.72)), blood + 4, rests=True),
        Organ(p.ball((heart + 0.02, -60, -14), (36, 34, 29)), blood, rests=True),
        Organ(p.ball((heart + 0.11, -40, 2), (20, 19, 37)), blood, rests=True),
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
        Organ(
            p.tube(
                (-0.1, -30, 14, 9), (0.15, -24, 8, 8), (0.5, -21, 4, 7), (0.9, -20, 5, 6.5), (1.5, -20, 3, 6)
            ),
            wall,
            2,
        ),
        Organ(p.tube((0.0, -16, -9, 3.5), (0.6, -17, -10, 4), (0.64, -40, -26, 4)), blood, 1),
        Organ(p.ball((1.1, -42, -18), (22, 13, 10)), 85, 1),
        Organ(p.ball((1.1, -42, 18), (22, 13, 10)), 85, 1),
        Organ(p.ball((0.55, -42, -2), (12, 10, 12)), 35, 1),
        *[Organ(p.ball((0.52, -31, s * 47), (17, 10, 11)), 10, 0) for s in (-1, 1)],
    ]
    trachea = [(1.6, -40, 0, 9.5), (1.0, -37, 0, 9.5), (0.62, -33, 3, 9.5)]
    organs.append(Organ(p.tube(*trachea), wall, 2))
    organs.append(Organ(p.tube((0.63, -33, 3, 8.5), (0.58, -33, -20, 7.5), (0.52, -32, -38, 6.5)), wall, 2))
    organs.append(Organ(p.tube((0.63, -33, 3, 8), (0.57, -31, 26, 7), (0.52, -30, 44, 6)), wall, 2))
    return organs


def air_tubes(patient: Patient) -> list[Tube]:
    """The lumen of the trachea and of both main bronchi."""
    p = patient
    return [
        p.tube((1.6, -40, 0, 8), (1.0, -37, 0, 8), (0.62, -33, 3, 8.2)),
        p.tube((0.63, -33, 3, 7), (0.58, -33, -20, 6.3), (0.52, -32, -38, 5.2)),
        p.tube((0.63, -33, 3, 6.2), (0.57, -31, 26, 5.8), (0.52, -30, 44, 4.8)),
    ]


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
        return np.exp(np.clip(-distance / k, -30, 12))

    y_top = (
        float(np.mean([patient.level(c, np.float32(patient.height)) for c in (_CAGE_FRONT, _CAGE_BACK)])) + 8
    )
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
