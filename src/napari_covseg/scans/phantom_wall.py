"""The phantom's chest wall, skeleton, abdomen and table: everything that is not lung or mediastinum."""

from __future__ import annotations

import numpy as np

from napari_covseg.scans.phantom_shapes import Array, Grid, Shape, Tube, ball, paint
from napari_covseg.scans.phantom_thorax import Patient

FAT, MUSCLE, MARROW, CORTEX = -104.0, 52.0, 170.0, 620.0
_RIB_PITCH = 0.098  # distance of two ribs as a share of the lungs' height


def paint_wall(
    image: Array, patient: Patient, grid: Grid, body: Array, cage: Array, coarse: Array, middle: Array
) -> None:
    """Paint skin, fat, muscle and mediastinal fat inside the body, in place.

    Muscles lie on the cage, thick behind and at the shoulders; planes of fat between
    them follow the zero crossings of smooth noise.
    """
    height = grid.z / np.float32(patient.height)
    rho = np.sqrt(grid.x**2 + grid.y**2) + 1
    behind, side, before = np.clip(grid.y / rho, 0, 1), np.abs(grid.x) / rho, np.clip(-grid.y / rho, 0, 1)
    upper = np.clip((height - 0.45) / 0.3, 0, 1).astype(np.float32)
    thick = 13 + 15 * behind**2 + upper * (30 * side**2 + 14 * before) + 60 * np.clip(height - 0.85, 0, 0.6)
    under = 4 + np.float32(max(patient.fat + 4, 2)) * (0.7 + 0.5 * behind) - 4 * upper * side
    meat = np.maximum(cage - thick - 3 * coarse, body + under + 2.0 * middle)
    planes = np.clip((np.abs(middle + 0.8 * coarse) - 0.10) / 0.12, 0, 1)
    planes = np.maximum(planes, np.clip((9 - cage) / 3, 0, 1))
    paint(image, grid.cover(body), FAT + 6 * middle)
    paint(image, grid.cover(np.abs(body + 1.2) - 0.8) * 0.8, 10.0)
    paint(image, grid.cover(meat) * planes * grid.cover(-cage), MUSCLE + 5 * middle)
    if patient.breasts:
        gland = np.maximum(np.maximum(body + 9, 16 - cage), np.abs(height - 0.42) * 90 - 14 + 9 * middle)
        gland = np.maximum(gland, grid.y + 40 + 0 * cage)
        paint(image, grid.cover(gland, 6) * 0.8, 25.0)
    paint(image, grid.cover(cage), -100 + 8 * middle)


def _bone(image: Array, grid: Grid, distance: Array, cortex: float, middle: Array) -> None:
    """Paint a bone: marrow with a hard shell of about 2 mm, in place."""
    paint(image, grid.cover(distance), cortex)
    paint(image, grid.cover(distance + 2.2), MARROW + 45 * middle)


def _bones(patient: Patient) -> list[Tube]:
    """Sternum, clavicles, shoulder blades and upper arms, as tubes."""
    p = patient
    front = [p.place(h, 0, 0) for h in (0.36, 0.6, 0.80)]
    sternum_y = [-97 * p.deep, -80 * p.deep, -62 * p.deep]
    tubes: list[Tube] = []
    for offset, radius in ((-9, 5.5), (0, 6), (9, 5.5)):
        points = np.array(
            [
                [f[0], y, offset * (1 + 0.8 * (i == 2))]
                for i, (f, y) in enumerate(zip(front, sternum_y, strict=True))
            ]
        )
        tubes.append(Tube(points, np.array([radius, radius, radius + 1.0])))
    h = p.height
    for s in (-1.0, 1.0):
        shoulder = 168 * p.wide * s
        up = 0.0 if p.arms_down else 14.0
        tubes.append(
            Tube(
                np.array([[0.84 * h, -58, 22 * s], [0.93 * h, -52, 80 * s], [1.02 * h + up, -20, 150 * s]]),
                np.array([8.0, 5.5, 6.5]),
            )
        )
        for share, y, x, reach in (
            (0.52, 98, 108, 10),
            (0.64, 97, 95, 34),
            (0.76, 92, 84, 58),
            (0.88, 84, 82, 70),
        ):
            points = np.array(
                [
                    [share * h, y, x * s],
                    [share * h + 8, y - 0.25 * reach, (x + 0.55 * reach) * s],
                    [share * h + 12, y - 0.8 * reach, (x + reach) * s],
                ]
            )
            following = points + np.array([[0.06 * h, -2, -2 * s], [0.06 * h, -3, 0], [0.06 * h, -5, 2 * s]])
            for one, two in zip(points, following, strict=True):
                tubes.append(Tube(np.array([one, two]), np.array([3.4, 3.4])))
            tubes.append(Tube(points, np.array([4.5, 3.2, 5.0])))
            tubes.append(Tube(following, np.array([4.0, 3.2, 5.0])))
        tubes.append(Tube(np.array([[0.97 * h, 62, 92 * s], [1.0 * h, 40, 148 * s]]), np.array([4.0, 8.0])))
        far = (
            [[1.0 * h, 22, shoulder], [1.6 * h, -10, shoulder + 30 * s]]
            if not p.arms_down
            else [[1.0 * h, 18, shoulder], [-0.6 * h, 30, shoulder + 42 * s]]
        )
        tubes.append(Tube(np.array(far), np.array([22.0, 11.0])))
    return tubes


def paint_skeleton(image: Array, patient: Patient, grid: Grid, cage: Array, middle: Array) -> None:
    """Paint ribs, spine, sternum, clavicles and shoulder blades, in place."""
    _paint_ribs(image, patient, grid, cage, middle)
    for tube in _bones(patient):
        box = tube.near(grid, 4)
        part = grid.crop(box)
        if 0 in part.shape:
            continue
        _bone(image[box], part, tube.distance(part), 560.0, middle[box])
    _paint_spine(image, patient, grid, middle)


def _paint_ribs(image: Array, patient: Patient, grid: Grid, cage: Array, middle: Array) -> None:
    """Ribs are oblique rings on the cage: high at the spine, low in front, cartilage at the end."""
    zs, ys, xs = np.nonzero((cage > -1) & (cage < 15) & (grid.z < 1.02 * patient.height))
    if not zs.size:
        return
    z, y, x = grid.z[zs, 0, 0], grid.y[0, ys, 0], grid.x[0, 0, xs]
    turn = np.arctan2(np.abs(x), y + 6) / np.pi  # 0 at the spine, 1 at the sternum
    pitch = np.float32(_RIB_PITCH * patient.height)
    drop = np.float32(0.36 * patient.height) * np.sin(
        np.clip(turn, 0, 0.85) * np.pi / 1.7
    ) ** 1.3 - 12 * np.clip(turn - 0.8, 0, 1)
    number = (0.99 * patient.height - z - drop) / pitch + 1  # 1 is the first rib
    nearest = np.round(number)
    dz = (number - nearest) * pitch
    dr = cage[zs, ys, xs] - 6.5
    distance = np.sqrt(dr**2 + (dz * 0.62) ** 2) - 4.1
    shown = (nearest >= 1) & (nearest <= 12) & (turn < np.where(nearest > 10, 0.55, 0.93)) & (turn > 0.06)
    cover = np.where(shown, np.clip(0.5 - distance / grid.width, 0, 1), 0)
    gristle = np.clip((turn - 0.74) / 0.03, 0, 1)
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
    inside = np.maximum(below + 2.5, cage + 2.5)
    if inside.min() > 5:
        return
    edge = 12 - 0.75 * grid.y - 0.35 * (right - grid.z) - np.clip(grid.y, 0, 80) * 0.5
    liver = np.maximum(inside, (grid.x - edge * w) / 1.3 + 4 * coarse)
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
        paint(image[box], part.cover(pocket), -940.0)


def _paint_inside(
    image: Array, grid: Grid, shape: Shape, inside: Array, value: float, texture: Array
) -> None:
    box = shape.near(grid, 4)
    part = grid.crop(box)
    if 0 not in part.shape:
        paint(image[box], part.cover(np.maximum(shape.distance(part), inside[box])), value + texture[box])


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
