"""The phantom's patient: proportions, the outlines of cage and body, the diaphragm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phantom.shapes import Array, Ball, Grid, Noise, Tube, ball, oval

# Outlines along the body for an adult of middle size, in mm; y = 0 is the middle of the
# chest, the height is a share of the lungs' height (0 base, 1 apex). Half-widths, front
# and back of the pleural cavity, then of the body.
_HEIGHT = np.array([-0.60, -0.30, 0.00, 0.15, 0.30, 0.50, 0.65, 0.78, 0.88, 0.96, 1.04, 1.14, 1.25, 1.40])
_CAGE_HALF = np.array([124, 128, 133, 135, 135, 131, 122, 109, 95, 82, 68, 56, 48, 48])
CAGE_FRONT = np.array([-88, -92, -96, -96, -94, -87, -76, -62, -48, -35, -23, -14, -10, -10])
CAGE_BACK = np.array([66, 68, 73, 76, 78, 78, 76, 71, 65, 58, 50, 42, 36, 34])
_BODY_HALF = np.array([150, 151, 155, 158, 160, 161, 164, 170, 179, 192, 200, 192, 150, 80])
_BODY_FRONT = np.array([-116, -115, -115, -115, -114, -106, -95, -82, -69, -56, -44, -34, -25, -10])
_BODY_BACK = np.array([102, 102, 104, 107, 110, 113, 113, 110, 105, 99, 91, 82, 72, 60])


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
    heart : float
        Factor on the heart's size.
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
    heart: float
    breasts: float
    arms_down: bool
    coarse: Noise
    middle: Noise
    fine: Noise

    def level(self, values: npt.NDArray[np.float64], z: Array) -> Array:
        """A column of the outline table at heights z in mm, float32, shape of z."""
        return np.asarray(np.interp(z / self.height, _HEIGHT, values), np.float32)

    def spine(self, z: Array) -> Array:
        """The y in mm of the middle of the vertebral bodies at heights z."""
        return self.level(CAGE_BACK, z) * np.float32(self.deep) - np.float32(44)

    def place(self, height: float, back: float, left: float) -> tuple[float, float, float]:
        """(z, y, x) in mm of a point at a share of the height, `back` mm behind the spine's middle."""
        z = height * self.height
        return z, float(self.spine(np.asarray(z, np.float32))) + back * self.deep, left * self.wide

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
        wide=float(rng.uniform(0.95, 1.08)),
        deep=float(rng.uniform(0.96, 1.08)),
        fat=float(rng.uniform(-3, 12)),
        domes=(right, right - float(rng.uniform(4, 16))),
        blood=float(rng.choice([42, 40, 45, 38, 44, 160, 220])),
        heart=float(rng.uniform(0.9, 1.1)),
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
    front, back = (patient.level(c, grid.z) * np.float32(patient.deep) for c in (CAGE_FRONT, CAGE_BACK))
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
        neck = oval(part, (np.full_like(part.z, 60), depth), np.full_like(part.z, 5), 2.1)
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
