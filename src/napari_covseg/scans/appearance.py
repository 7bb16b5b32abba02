"""What a slice looks like, from its pixels alone: kind, contrast, inversion, turn, mirror, crop.

Use: ``found = look(scan.voxels, scan.intensity)``; show ``found.sentences()`` and keep ``found.to_json()``
in the case. Where the user knows better: ``found = found.overruled(turned=90, contrast="equalised")``.
``if found.kind != "chest CT"``: say so and label only when asked a second time. For pictures label
``upright(slice, found)`` and store ``back(labels, found)``, which lies in the grid of the file again.
For HU only the kind and a mirror image are looked at; both functions return what they are given. Of an X-ray
only the kind and marks are: how it lies cannot be told by rules of axial slices.

Every rule is linear in a few measures or in a picture of 16 × 16 fields around the lungs, but which way
is up: there a network of two small convolutions adds to it. The coefficients lie in
``appearance.json`` with their names; ``benchmarks/guises.py --fit`` makes them, on patients that are not
those it tests with (both lists stand there). The few thresholds below were chosen by eye on the same
teaching patients. Of heads, magnetic resonance and photographs there were only made-up slices and
scikit-image's pictures: what is said of them is a hint, and so is text, of which single letters, arrows
and all that lies on the body are not seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.masks.parts import measured
from napari_covseg.scans.scan import LUNG_WINDOW, Intensity

Array = npt.NDArray[Any]
Kind = Literal[
    "chest CT", "chest X-ray", "X-ray", "abdomen CT", "head CT", "MR", "mask", "photograph", "blank"
]
Contrast = Literal["lung window", "mediastinal window", "whole range", "equalised"]
Marks = Literal["none", "text", "colour"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CONTRASTS: tuple[Contrast, ...] = get_args(Contrast)

MOST_SLICES = 9
"""Of a stack so many are looked at, evenly spaced: they vote."""

FINE, COARSE = 256, 128
"""Longest side in pixels at which grey values and shapes are measured."""

FIELDS = 16
"""Fields per side of the picture around the lungs."""


def _small(grey: Array, side: int) -> Array:
    scale = side / max(grey.shape)
    if scale == 1:
        return grey
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))


# --- what is measured -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """Lungs and body in a slice of `COARSE` pixels, bool (y, x), and the threshold between them."""

    grey: Array
    lungs: Array
    body: Array
    threshold: float


MEDIASTINAL_THRESHOLD = 16
"""Of 255, in a mediastinal window: lung is 0 there, fat about 38; Otsu's threshold takes fat for air."""


def shape(grey: Array) -> Shape:
    """Find lungs and body: dark parts inside of the convex hull of the large bright parts."""
    coarse = cv2.GaussianBlur(_small(grey, COARSE), (3, 3), 0)
    found = _parted(coarse, float(cv2.threshold(coarse, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]))
    inside = coarse[found.body] if found.body.any() else coarse
    # in a mediastinal window a valley lies between the lungs' black and fat
    black, valley = float(np.mean(inside <= 4)), float(np.mean((inside >= 8) & (inside <= 24)))
    if black > 0.04 and valley < 0.6 * black:
        lower = _parted(coarse, MEDIASTINAL_THRESHOLD)
        if lower.lungs.mean() > 0.02:
            return lower
    return found


def _parted(coarse: Array, threshold: float) -> Shape:
    body = np.zeros(coarse.shape, np.uint8)
    # thin things (table, tubes, blankets) are no body: opened away
    bright = cv2.morphologyEx(
        (coarse > threshold).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)
    )
    parts, sizes = measured(bright)[:2]
    large = sizes >= 0.012 * coarse.size
    # of a crop to the lungs little more than the corners is chest wall
    large[_at_corners(parts)] |= sizes[_at_corners(parts)] >= 0.002 * coarse.size
    large[0] = False
    points = cv2.findNonZero(large[parts].astype(np.uint8))
    if points is not None:
        cv2.fillConvexPoly(body, cv2.convexHull(points), 1)
    dark = cv2.morphologyEx((coarse <= threshold).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    parts, sizes = measured(dark)[:2]
    area = np.maximum(sizes, 1)
    inside = np.bincount(parts[body > 0], minlength=len(sizes)) / area
    keep = (area >= 0.006 * coarse.size) & ((inside > 0.7) | (area >= 0.04 * coarse.size))
    keep[0] = keep[_at_corners(parts)] = False  # what reaches a corner is outside air
    lungs = keep[parts]
    return Shape(coarse, lungs, (body > 0) | lungs, threshold)


def _at_corners(parts: Array) -> Array:
    """Return which parts lie at a corner, or at one inside of a thin frame."""
    high, wide = parts.shape
    inset = min(4, high // 8, wide // 8)
    places = [(y, x) for i in (0, inset) for y in (i, high - 1 - i) for x in (i, wide - 1 - i)]
    return np.unique(np.array([parts[place] for place in places]))


MEASURES = (
    "constant", *(f"root of the share of grey {16 * i} to {16 * i + 15}" for i in range(16)),
    "share black", "share white", *(f"noise where grey is {64 * i} to {64 * i + 63}" for i in range(4)),
    *(f"noise, quantile {q}" for q in (10, 25, 50, 75, 90)), "mean of tiles", "spread of tiles",
    *(f"entropy of tiles, quantile {q}" for q in (10, 50, 90)), "mean of the border", "spread of the border",
    *(f"grey of the lungs, quantile {q}" for q in (10, 50, 90)),
    *(f"grey of the body, quantile {q}" for q in (10, 50, 90)), "spread of the lungs", "spread of the body",
    "grey outside", "no lungs", "share of the lungs", "share of the lungs, squared", "lungs by body",
    "second lung by first", "share of the body", "lung by its hull",
)  # fmt: skip
"""Names of what `measures` returns; noise is the log of the deviation in 5 x 5 of `FINE` pixels."""


def measures(grey: Array, found: Shape) -> Array:
    """Return what is measured of a slice, uint8 (y, x), as float64 in the order of `MEASURES`."""
    fine = _small(grey, FINE)
    values = fine.astype(np.float32)
    shares = np.bincount(fine.ravel() >> 4, minlength=16) / fine.size
    mean = cv2.blur(values, (5, 5))
    noise = np.log2(1 + np.sqrt(np.maximum(cv2.blur(values * values, (5, 5)) - mean * mean, 0)))
    level = (mean // 64).astype(np.uint8)
    local = [float(noise[level == i].mean()) if np.mean(level == i) > 0.002 else 0.0 for i in range(4)]
    tiles = cv2.resize(values, (8, 8), interpolation=cv2.INTER_AREA)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return np.array(
        [
            1.0,
            *np.sqrt(shares),
            float(np.mean(fine <= 3)),
            float(np.mean(fine >= 252)),
            *local,
            *np.quantile(noise, (0.1, 0.25, 0.5, 0.75, 0.9)),
            tiles.mean() / 128,
            tiles.std() / 64,
            *np.quantile(_entropies(fine), (0.1, 0.5, 0.9)),
            border.mean() / 128,
            border.std() / 64,
            *_of_shape(found),
        ]
    )


def _entropies(fine: Array) -> list[float]:
    tiles = (tile for row in np.array_split(fine, 8) for tile in np.array_split(row, 8, axis=1))
    shares = (np.bincount(tile.ravel() >> 3, minlength=32) / max(tile.size, 1) for tile in tiles)
    return [-float(np.sum(p * np.log2(np.maximum(p, 1e-9)))) for p in shares]


def _of_shape(found: Shape) -> list[float]:
    grey, lungs, rest = found.grey / 128, found.lungs, found.body & ~found.lungs
    lung = grey[lungs] if lungs.any() else np.zeros(1)
    other = grey[rest] if rest.any() else np.zeros(1)
    outside = float(grey[~found.body].mean()) if not found.body.all() else 0.0
    share = float(lungs.mean())
    parts, sizes = measured(lungs)[:2]
    areas = np.sort(sizes[1:])[::-1]
    hull = 0.0
    if len(areas):
        points = cv2.findNonZero((parts == 1 + np.argmax(sizes[1:])).astype(np.uint8))
        hull = float(areas[0] / max(cv2.contourArea(cv2.convexHull(points)), float(areas[0])))
    return [
        *np.quantile(lung, (0.1, 0.5, 0.9)), *np.quantile(other, (0.1, 0.5, 0.9)),
        float(lung.std()), float(other.std()), outside, float(share < _LEAST_LUNG), share, share * share,
        float(lungs.sum() / max(found.body.sum(), 1)), float(areas[1] / areas[0]) if len(areas) > 1 else 0.0,
        float(found.body.mean()), hull,
    ]  # fmt: skip


_LEAST_LUNG = 0.01


def around(found: Shape) -> Array:
    """Return the picture around the lungs, float32 (2, FIELDS, FIELDS); zeros where there is no lung.

    It reaches 20 % of the lungs' box over each side. The first plane is lung, the second how
    bright the rest is, from 0 at the threshold to 1 at the brightest tissue.
    """
    ys, xs = np.nonzero(found.lungs)
    if len(ys) < _LEAST_LUNG * found.lungs.size:
        return np.zeros((2, FIELDS, FIELDS), np.float32)
    (top, bottom), (left, right) = np.quantile(ys, (0.005, 0.995)), np.quantile(xs, (0.005, 0.995))
    high, wide = max(bottom - top + 1, 4), max(right - left + 1, 4)
    rest = found.grey[~found.lungs & found.body]
    white = max(float(np.quantile(rest, 0.98)), found.threshold + 1) if rest.size else 255.0
    bright = np.clip((found.grey - found.threshold) / (white - found.threshold), 0, 1).astype(np.float32)
    # sampled at four times the fields and averaged, so that small bones are not missed
    step_y, step_x = high * 1.4 / FIELDS / 4, wide * 1.4 / FIELDS / 4
    matrix = np.array([[step_x, 0, left - 0.2 * wide], [0, step_y, top - 0.2 * high]], np.float32)
    planes = []
    for plane in (found.lungs.astype(np.float32), bright):
        many = cv2.warpAffine(
            plane, matrix, (4 * FIELDS, 4 * FIELDS),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        planes.append(cv2.resize(many, (FIELDS, FIELDS), interpolation=cv2.INTER_AREA))
    return np.stack(planes)


def sides(found: Shape) -> Array:
    """Return what lies at the four sides, float (4, 3): top, left, bottom, right.

    Of each: bright things outside of the body (a table), the gap from the lungs to the border by the
    lungs' width or height (at most 0.5), and the log of the lungs' extent towards it by that across.
    """
    high, wide = found.lungs.shape
    ys, xs = np.nonzero(found.lungs)
    if len(ys) < _LEAST_LUNG * found.lungs.size:
        return np.zeros((4, 3))
    (top, bottom), (left, right) = np.quantile(ys, (0.002, 0.998)), np.quantile(xs, (0.002, 0.998))
    tall, broad = bottom - top + 1, right - left + 1
    things = (found.grey > found.threshold) & ~found.body
    body_y, body_x = np.flatnonzero(found.body.any(1)), np.flatnonzero(found.body.any(0))
    beyond = [
        float(part.sum() / found.body.sum() ** 0.5)
        for part in (
            things[: body_y[0] + 5],
            things[:, : body_x[0] + 5],
            things[body_y[-1] - 4 :],
            things[:, body_x[-1] - 4 :],
        )
    ]  # fmt: skip
    gaps = [top / tall, left / broad, (high - 1 - bottom) / tall, (wide - 1 - right) / broad]
    aspect = float(np.log(tall / broad))
    return np.array(
        [[min(b, 2.0), min(g, 0.5), a] for b, g, a in zip(beyond, gaps, (aspect, -aspect) * 2, strict=True)]
    )


# --- what follows from it ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """The fitted coefficients, as arrays; `rules` reads them.

    Attributes
    ----------
    contrast : ndarray, shape (4, len(MEASURES))
        In the order of `CONTRASTS`.
    upright : ndarray, shape (2, FIELDS, FIELDS)
        Weight of each field of `around` for a picture that stands upright; symmetric from left to right.
    spine : tuple of ndarray
        Two convolutions and their weights, which add to that: kernel (16, 2, 3, 3) and bias,
        kernel (32, 16, 3, 3) and bias, weights (32, FIELDS / 4, FIELDS / 4).
    sides : ndarray, shape (6,)
        Weights of `SIDES`.
    mirrored : ndarray, shape (2, FIELDS, FIELDS)
        Weight of each field for a mirror image; antisymmetric.
    cropped : ndarray, shape (7,)
        Weights of `CROPPED`.
    kind : ndarray, shape (len(FITTED_KINDS), len(MEASURES) + 2)
        Weights of the measures, the evidence for a chest and the log of the lungs' height by width.
    """

    contrast: Array
    upright: Array
    spine: tuple[Array, ...]
    sides: Array
    mirrored: Array
    cropped: Array
    kind: Array


SIDES = (
    "things above", "gap above", "things below", "gap below", "things beside", "height by width",
)  # fmt: skip
SPINE = ("first kernel", "first bias", "second kernel", "second bias", "fields")
CROPPED = (
    "constant", "least gap", "second gap", "third gap", "largest gap",
    "share of the body", "share of the lungs",
)  # fmt: skip
FITTED_KINDS: tuple[Kind, ...] = ("chest CT", "chest X-ray", "abdomen CT", "head CT", "MR", "photograph")
OF_KIND = (*MEASURES, "evidence for a chest", "height by width")


@cache
def rules() -> Rules:
    """Read the coefficients that lie beside this module."""
    stored = json.loads(Path(__file__).with_suffix(".json").read_text())

    def table(values: dict[str, dict[str, float]], rows: tuple[str, ...], columns: tuple[str, ...]) -> Array:
        return np.array([[values[row][column] for column in columns] for row in rows])

    return Rules(
        table(stored["contrast"], CONTRASTS, MEASURES),
        np.array([stored["upright"]["lungs"], stored["upright"]["tissue"]]),
        tuple(np.array(stored["upright"]["spine"][name], np.float32) for name in SPINE),
        np.array([stored["upright"]["sides"][name] for name in SIDES]),
        np.array([stored["mirrored"]["lungs"], stored["mirrored"]["tissue"]]),
        np.array([stored["cropped"][name] for name in CROPPED]),
        table(stored["kind"], FITTED_KINDS, OF_KIND),
    )


@dataclass(frozen=True)
class Seen:
    """What is measured of a slice as it is (0) and with its greys inverted (1)."""

    shapes: tuple[Shape, ...]
    measures: Array
    planes: Array
    sides: Array


def see(grey: Array, inversions: int = 2) -> Seen:
    """Measure a slice, uint8 (y, x), in both ways or (`inversions` 1) only as it is."""
    greys = (grey, 255 - grey)[:inversions]
    shapes = tuple(shape(g) for g in greys)
    return Seen(
        shapes,
        np.array([measures(g, s) for g, s in zip(greys, shapes, strict=True)]),
        np.array([around(s) for s in shapes]),
        np.array([sides(s) for s in shapes]),
    )


def of_sides(found: Array) -> Array:
    """Return `SIDES` of `sides` (..., 4, 3) for each quarter turn undone: (..., 4, 6)."""
    rolled = np.stack([np.roll(found, -turn, axis=-2) for turn in range(4)], axis=-3)
    beside = (rolled[..., 1, 0] + rolled[..., 3, 0]) / 2
    return np.stack(
        [
            rolled[..., 0, 0],
            rolled[..., 0, 1],
            rolled[..., 2, 0],
            rolled[..., 2, 1],
            beside,
            rolled[..., 0, 2],
        ],
        -1,
    )


def of_crop(found: Shape, lying: Array) -> Array:
    """Return `CROPPED` of a slice."""
    return np.array([1.0, *np.sort(lying[:, 1]), float(found.body.mean()), float(found.lungs.mean())])


def likeness(seen: Seen, rule: Rules) -> Array:
    """Return how like a chest it looks after each quarter turn, shape (inversions, 4), as logits."""
    return np.asarray(
        np.einsum("itpyx,pyx->it", _turned(seen), rule.upright) + of_sides(seen.sides) @ rule.sides
    )


def turn_evidence(seen: Seen, rule: Rules) -> Array:
    """Return how well each quarter turn fits, shape (inversions, 4), as logits."""
    turned = _turned(seen)
    both = np.stack([turned, turned[..., ::-1]])  # a mirror image stands upright as well
    spine = _of_spine(both.reshape(-1, *turned.shape[2:]), rule.spine).reshape(both.shape[:3])
    return np.asarray(likeness(seen, rule) + spine.mean(0))


def _turned(seen: Seen) -> Array:
    return np.stack([np.rot90(seen.planes, -turn, axes=(2, 3)) for turn in range(4)], 1)


def _of_spine(planes: Array, spine: tuple[Array, ...]) -> Array:
    """Return what the two convolutions say of pictures (n, 2, FIELDS, FIELDS): (n,)."""
    values = planes
    for kernel, bias in (spine[0:2], spine[2:4]):
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3)
        )
        values = np.tensordot(windows, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        values = np.maximum(values + bias[:, None, None], 0)
        count, channels, high, wide = values.shape
        values = values.reshape(count, channels, high // 2, 2, wide // 2, 2).max((3, 5))
    return np.asarray(np.einsum("ncyx,cyx->n", values, spine[4]))


@dataclass(frozen=True)
class Appearance:
    """What a scan or a stack of pictures looks like.

    Attributes
    ----------
    intensity : {"HU", "grey"}
        Of the scan. For HU all but `kind` and `mirrored` is what it has to be, and nothing is turned.
    kind : str
        One of `KINDS`. Only an axial chest CT is to be labelled.
    contrast : str or None
        One of `CONTRASTS`; None for HU and X-rays.
    inverted : bool
        Air is white.
    turned : int
        0, 90, 180 or 270: degrees counter-clockwise by which the picture is turned away from upright
        (spine below).
    mirrored : bool or None
        The heart lies on the wrong side; None where that cannot be seen. Said, never undone.
    cropped : bool
        The lungs reach the border of the picture: a margin has to be added before it is labelled.
    marks : {"none", "text", "colour"}
        Something was drawn into the picture.
    bits : int
        Bits that the grey values need, at least 8; 16 for HU.
    confidence : mapping of str to float
        Of every field above but `intensity` and `bits`, in [0, 1]; 1 where a person has said so.
    """

    intensity: Intensity
    kind: Kind = "chest CT"
    contrast: Contrast | None = None
    inverted: bool = False
    turned: int = 0
    mirrored: bool | None = None
    cropped: bool = False
    marks: Marks = "none"
    bits: int = 8
    confidence: Mapping[str, float] = field(default_factory=dict)

    @property
    def equalised(self) -> bool:
        """Whether the contrast was equalised (CLAHE), so that it must not be again."""
        return self.contrast == "equalised"

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Appearance:
        """Rebuild from `to_json()`; what a newer version has added is left out."""
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})

    def overruled(self, **what: Any) -> Appearance:
        """Return what a person says instead, with confidence 1.

        Raises
        ------
        ScanError
            If there is no such field or value, or a scan in HU is to be turned, inverted or windowed.
        """
        for name, value in what.items():
            if name not in CHOICES:
                raise ScanError(
                    f"There is nothing called {name} to overrule; choose of {', '.join(CHOICES)}."
                )
            if not any(
                value is choice or (value == choice and type(value) is type(choice))
                for choice in CHOICES[name]
            ):
                choices = ", ".join(str(choice) for choice in CHOICES[name])
                raise ScanError(f"{name} cannot be {value}; choose of {choices}.")
            if self.intensity == "HU" and name not in ("kind", "mirrored"):
                raise ScanError(
                    f"A scan in HU has its geometry and its grey values from the file, so {name} cannot be "
                    "overruled; leave it out."
                )
        return replace(self, **what, confidence={**self.confidence, **dict.fromkeys(what, 1.0)})

    def refusal(self, name: str) -> str:
        """Return why this is not to be labelled, one sentence; empty for a chest CT.

        Parameters
        ----------
        name : str
            What to call it.
        """
        if self.kind == "chest CT":
            return ""
        return f"{name}: {self._sentence('kind', _KIND_SENTENCES[self.kind])}"

    def sentences(self) -> list[str]:
        """Return what a person should read, one sentence each, what matters most first."""
        found = [self._sentence("kind", _KIND_SENTENCES[self.kind])]
        if self.kind != "chest CT":
            return found
        if self.intensity == "grey":
            found.append(self._sentence("contrast", _CONTRAST_SENTENCES[self.contrast or "lung window"]))
            if self.inverted:
                found.append(self._sentence("inverted", "Its grey values are inverted, so air is white"))
            if self.turned:
                found.append(
                    self._sentence(
                        "turned",
                        f"It is turned by {self.turned}° counter-clockwise; it is labelled upright, and the "
                        "labels lie as the file does",
                    )
                )
            if self.cropped:
                found.append(self._sentence("cropped", "It is cropped to the lungs, without a margin"))
            if self.marks != "none":
                drawn = "text" if self.marks == "text" else "something in colour"
                found.append(self._sentence("marks", f"There seems to be {drawn} drawn into it"))
        if self.mirrored:
            found.append(
                self._sentence(
                    "mirrored",
                    "It looks like a mirror image (the heart lies on the wrong side); this is not undone, so "
                    "right and left may be exchanged",
                )
            )
        elif self.mirrored is None:
            found.append("Whether it is a mirror image cannot be seen.")
        return found

    def remarks(self) -> list[str]:
        """Return the sentences about what is unusual: what is undone, what cannot be, what it is if no CT."""
        usual = {_KIND_SENTENCES["chest CT"], "Whether it is a mirror image cannot be seen"}
        usual |= set(_CONTRAST_SENTENCES.values())
        return [sentence for sentence in self.sentences() if not sentence.startswith(tuple(usual))]

    def _sentence(self, name: str, text: str) -> str:
        sure = self.confidence.get(name, 1.0)
        return f"{text}." if sure >= 0.995 else f"{text} ({100 * sure:.0f} % sure)."


HOUNSFIELD = Appearance("HU")
"""A chest CT in HU that nobody has looked at."""
PREPARED = Appearance("grey", contrast="equalised")
"""Pictures that are upright and equalised, as the first model's training slices are."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "kind": KINDS,
    "contrast": CONTRASTS,
    "inverted": (False, True),
    "turned": (0, 90, 180, 270),
    "mirrored": (False, True, None),
    "cropped": (False, True),
    "marks": get_args(Marks),
}
"""What a person can say, by field."""
_KIND_SENTENCES: dict[Kind, str] = {
    "chest CT": "This is an axial chest CT",
    "chest X-ray": "This looks like a chest X-ray, not like an axial chest CT",
    "X-ray": "This is an X-ray that is not known to show a chest, and no CT",
    "abdomen CT": "This looks like CT without lung in it (abdomen or neck), not like a chest CT",
    "head CT": "This looks like a CT of the head, not of the chest",
    "MR": "This looks like magnetic resonance, not like CT",
    "mask": "This looks like a label mask, not like a scan",
    "photograph": "This looks like a photograph or a drawing, not like a CT",
    "blank": "There is nothing in it: all values are almost equal",
}
_CONTRAST_SENTENCES: dict[Contrast, str] = {
    "lung window": "It shows a lung window",
    "mediastinal window": "It shows a mediastinal window, in which lungs and most findings are black",
    "whole range": "It shows the whole range from air to bone",
    "equalised": "Its contrast was equalised (CLAHE)",
}


def parse_choices(texts: Iterable[str]) -> dict[str, Any]:
    """Return what a person says in words, ``FIELD=VALUE``, for `Appearance.overruled`.

    Yes and no are written so; a mirror image of which nothing is known is "unknown".

    Raises
    ------
    ScanError
        If a text is no such pair, or there is no such field or value.
    """
    chosen = {}
    for text in texts:
        name, equals, value = (part.strip().lower() for part in text.partition("="))
        if not equals or name not in CHOICES:
            raise ScanError(
                f"{text!r} says nothing of a scan; write FIELD=VALUE, FIELD one of {', '.join(CHOICES)}."
            )
        spelled = {_spelled(choice).lower(): choice for choice in CHOICES[name]}
        if value not in spelled:
            choices = ", ".join(_spelled(choice) for choice in CHOICES[name])
            raise ScanError(f"{name} cannot be {value or 'empty'}; choose of {choices}.")
        chosen[name] = spelled[value]
    return chosen


def _spelled(choice: bool | int | str | None) -> str:
    if isinstance(choice, bool):
        return "yes" if choice else "no"
    return "unknown" if choice is None else str(choice)


# --- looking ----------------------------------------------------------------------------------------


_SURE_MIRROR = 0.95
"""Less sure than this, nothing is said. Above it, by cross-validation over teaching patients, 98.4 % of what
is said is right: of slices of scans 99.8 % (55 % decided), of single pictures 96 to 98 % (55 % decided)."""

_COLOURED, _COLOURED_PART = 24, 0.002
"""A pixel is coloured if its channels differ by more; JPEG alone makes them differ by a few."""

_PHOTO_PART = 0.2
"""With colour on more than this part a picture is a photograph."""


def look(voxels: Array, intensity: Intensity) -> Appearance:
    """Look at a scan or at pictures.

    Parameters
    ----------
    voxels : ndarray, shape (z, y, x) or (y, x); in colour (z, y, x, 3) or (y, x, 3), uint8
        HU, or grey values (0 to 255, or up to 65535). At most `MOST_SLICES` slices are looked at.
    intensity : {"HU", "grey"}
        A DICOM secondary capture is "grey".

    Raises
    ------
    ValueError
        If it has no pixels or another number of axes.
    """
    voxels = np.asarray(voxels)
    coloured = 0.0
    if (
        voxels.size
        and voxels.ndim >= 3
        and voxels.shape[-1] in (3, 4)
        and voxels.dtype == np.uint8
        and intensity == "grey"
    ):
        rgb = voxels[..., :3]
        coloured = float(np.mean(np.ptp(rgb, axis=-1) > _COLOURED))
        voxels = np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    if voxels.ndim == 2:
        voxels = voxels[None]
    if voxels.ndim != 3 or voxels.size == 0:
        raise ValueError(f"a scan has slices of pixels, not the shape {voxels.shape}")
    chosen = np.unique(np.linspace(0, len(voxels) - 1, MOST_SLICES + 2).astype(int)[1:-1])
    slices = voxels[chosen]
    if intensity == "HU":
        return _look_at_hu(slices)
    low, high = float(slices.min()), float(slices.max())
    bits = max(8, int(np.ceil(np.log2(max(high, 1) + 1))))
    if low < 0 or high > 255:
        slices = (slices.astype(np.float32) - low) * np.float32(255 / max(high - low, 1))
    found = replace(_look_at_grey([np.asarray(s, np.uint8) for s in slices]), bits=bits)
    if coloured > _PHOTO_PART:
        return replace(
            found,
            kind="photograph",
            marks="colour",
            confidence={**found.confidence, "kind": 0.9, "marks": 1.0},
        )
    if coloured > _COLOURED_PART:
        return replace(found, marks="colour", confidence={**found.confidence, "marks": 1.0})
    return found


def _look_at_hu(slices: Array) -> Appearance:
    low, high = LUNG_WINDOW
    greys = [np.asarray((np.clip(s, low, high) - low) * (255 / (high - low)), np.uint8) for s in slices]
    bare = _bare_kind(greys)
    # even tissue in air is no mask: labels are few and not below 0
    labels = slices.min() >= 0 and len(np.unique(slices)) <= 256
    if bare is not None and (bare[0] == "blank" or labels):
        return Appearance("HU", bare[0], bits=16, confidence={"kind": bare[1]})
    rule = rules()
    seen = [see(grey, 1) for grey in greys]
    evidence = [turn_evidence(s, rule) for s in seen]
    kind, sure = _kind(seen, [0] * len(seen), rule, ("chest CT", "abdomen CT", "head CT"))
    mirrored, how_sure = _mirrored(seen, 0, 0, rule)
    if np.argmax(_vote([e[0] for e in evidence], _weights(seen))) != 0:  # lies oddly: no side can be told
        mirrored, how_sure = None, 0.5
    confidence = {"kind": sure, "mirrored": how_sure}
    return Appearance("HU", kind, mirrored=mirrored, bits=16, confidence=confidence)


def _look_at_grey(greys: list[Array]) -> Appearance:
    bare = _bare_kind(greys)
    if bare is not None:
        return Appearance("grey", bare[0], confidence={"kind": bare[1]})
    rule = rules()
    seen = [see(grey) for grey in greys]
    turns = [turn_evidence(s, rule) for s in seen]
    contrasts = [s.measures @ rule.contrast.T for s in seen]
    both = [c[:, :, None] + t[:, None, :] for c, t in zip(contrasts, turns, strict=True)]
    joint = _shares(_vote(both, _weights(seen)))
    inverted, contrast, turn = (int(i) for i in np.unravel_index(np.argmax(joint), joint.shape))
    best = [int(np.argmax(np.logaddexp.reduce(b.reshape(2, -1), axis=1))) for b in both]
    kind, sure = _kind(seen, best, rule, FITTED_KINDS)
    text = max(_text(grey, s.shapes[inverted], bool(inverted)) for grey, s in zip(greys, seen, strict=True))
    marks: Marks = "text" if text > 0.5 else "none"
    if kind == "chest X-ray":
        if max(between_walls(grey) for grey in greys) < _LEAST_BETWEEN:
            kind = "X-ray"
        confidence = {"kind": sure, "marks": max(text, 1 - text)}
        return Appearance("grey", kind, marks=marks, confidence=confidence)
    mirrored, sure_mirror = _mirrored(seen, inverted, turn, rule, float(joint.sum((0, 1))[turn]))
    crops = [of_crop(s.shapes[inverted], s.sides[inverted]) @ rule.cropped for s in seen]
    crop = 1 / (1 + np.exp(-float(_vote(crops, _weights(seen)))))
    return Appearance(
        "grey",
        kind,
        CONTRASTS[contrast],
        bool(inverted),
        90 * turn,
        mirrored,
        bool(crop > 0.5),
        marks,
        confidence={
            "kind": sure,
            "contrast": float(joint.sum((0, 2))[contrast]),
            "inverted": float(joint.sum((1, 2))[inverted]),
            "turned": float(joint.sum((0, 1))[turn]),
            "mirrored": sure_mirror,
            "cropped": float(max(crop, 1 - crop)),
            "marks": max(text, 1 - text),
        },
    )


_LEAST_BETWEEN = 0.125
"""Of `between_walls`: of 440 X-rays of chests one has less (0.114), of a knee 0.01."""


def between_walls(grey: Array) -> float:
    """Return the share of an X-ray's upper middle that is darker than what lies to its left and right.

    So lie lungs between spine and chest wall; a limb is brightest in its middle.

    Parameters
    ----------
    grey : ndarray of uint8, shape (y, x)
    """
    values = cv2.resize(grey.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    low, high = np.quantile(values, (0.02, 0.98))
    values = np.clip((values - low) / max(float(high - low), 1.0), 0, 1)
    left = np.maximum.accumulate(values, axis=1)
    right = np.maximum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
    return float(np.mean((np.minimum(left, right) - values)[4:24] > 0.08))


def _weights(seen: Sequence[Seen]) -> Array:
    """Return how much each slice counts: those with little lung (neck, liver) count less."""
    lungs = np.array([max(float(shape.lungs.mean()) for shape in s.shapes) for s in seen])
    return np.clip(lungs / 0.1, 0.05, 1)


def _vote(logits: Sequence[Array], weights: Array) -> Array:
    """Return the evidence of all slices together: slices of a scan are alike, so n count as their root."""
    mean = np.average(np.stack([np.asarray(x, np.float64) for x in logits]), axis=0, weights=weights)
    return np.asarray(mean * np.sqrt(weights.sum() / weights.max()))


def _shares(logits: Array) -> Array:
    exact = np.exp(logits - logits.max())
    return np.asarray(exact / exact.sum())


def _kind(
    seen: Sequence[Seen],
    inverted: Sequence[int],
    rule: Rules,
    among: tuple[Kind, ...],
) -> tuple[Kind, float]:
    """Return the kind by the third of the slices that look most like a chest: others show neck or liver."""
    columns = [FITTED_KINDS.index(kind) for kind in among]
    logits = np.array(
        [of_kind(s, likeness(s, rule), i) @ rule.kind[columns].T for s, i in zip(seen, inverted, strict=True)]
    )
    chest = logits[:, 0] - np.logaddexp.reduce(logits[:, 1:], axis=1)
    best = logits[np.argsort(chest)[-((len(logits) + 2) // 3) :]]
    shares = _shares(_vote(list(best), np.ones(len(best))))
    return among[int(np.argmax(shares))], float(shares.max())


def of_kind(seen: Seen, like: Array, inverted: int) -> Array:
    """Return `OF_KIND` of a slice; `like` is its `likeness`."""
    evidence = float(np.logaddexp.reduce(like[inverted])) / 10
    return np.array([*seen.measures[inverted], evidence, abs(float(seen.sides[inverted, 0, 2]))])


def _mirrored(
    seen: Sequence[Seen], inverted: int, turn: int, rule: Rules, sure_of_turn: float = 1.0
) -> tuple[bool | None, float]:
    """Return the side of the heart; taken for upside down, a chest would look like its mirror image."""
    planes = [np.rot90(s.planes[inverted], -turn, axes=(1, 2)) for s in seen]
    evidence = float(_vote([np.array(np.sum(p * rule.mirrored)) for p in planes], _weights(seen)))
    sure = sure_of_turn / (1 + np.exp(-abs(evidence)))
    return (None if sure < _SURE_MIRROR else evidence > 0), float(sure)


# --- upright and back -------------------------------------------------------------------------------


def upright(slices: Array, found: Appearance) -> Array:
    """Return pictures with inversion and quarter turn undone; HU as they are.

    Parameters
    ----------
    slices : ndarray, shape (y, x) or (z, y, x)
    found : Appearance

    Returns
    -------
    ndarray, same dtype, shape (y, x) or (z, y, x), y and x exchanged for a quarter turn
    """
    if found.intensity == "HU":
        return slices
    if found.inverted:
        slices = np.asarray((2**found.bits - 1) - slices, slices.dtype)
    return np.rot90(slices, -(found.turned // 90), axes=(-2, -1))


def back(labels: Array, found: Appearance) -> Array:
    """Return a label map of `upright`'s slices in the grid of the file; the exact inverse of its turn."""
    return labels if found.intensity == "HU" else np.rot90(labels, found.turned // 90, axes=(-2, -1))


# --- what is no scan at all, and what was drawn into it ----------------------------------------------


def _bare_kind(greys: Sequence[Array]) -> tuple[Kind, float] | None:
    """Return "blank" or "mask" if the slices are that."""
    spreads = [float(np.subtract(*np.quantile(grey, (0.999, 0.001)))) for grey in greys]
    if max(spreads) <= 4:
        return "blank", 1.0
    flat = [_flatness(grey) for grey, spread in zip(greys, spreads, strict=True) if spread > 4]
    flattest = float(np.median(flat))
    return ("mask", flattest) if flattest > 0.9 else None


def _flatness(grey: Array) -> float:
    """Return how much of a slice lies in even areas of few greys: a mask has little else."""
    few = np.bincount(grey.ravel() // 8, minlength=32)
    few = few + np.append(few[1:], 0)  # a grey may lie on the edge of two bins
    even = cv2.dilate(grey, np.ones((3, 3), np.uint8)) - cv2.erode(grey, np.ones((3, 3), np.uint8)) <= 6
    parts = np.sort(np.bincount(grey[even] // 8, minlength=32))[::-1]
    return float(parts[:4].sum() / grey.size)


def _text(grey: Array, found: Shape, inverted: bool) -> float:
    """Return how likely there is text outside of the body: letters side by side, bright in dark air.

    Single letters, arrows and what lies on the body are not found, hence never much below one half.
    """
    fine = _small(255 - grey if inverted else grey, 2 * FINE)
    body = cv2.resize(found.body.astype(np.uint8), fine.shape[::-1], interpolation=cv2.INTER_NEAREST)
    outside = cv2.dilate(body, np.ones((15, 15), np.uint8)) == 0
    if outside.mean() < 0.01 or float(np.quantile(fine[outside], 0.7)) > 100:
        return 0.3
    bright = ((fine > 130) & outside).astype(np.uint8)
    _, area, boxes, centres = measured(bright, touching="corners")
    if len(area) > 150:  # noise, or a page of text
        return 0.4
    wide, high = boxes[:, 2], boxes[:, 3]
    letters = (high >= 6) & (high <= 32) & (wide >= 2) & (wide <= 1.4 * high) & (area < 0.85 * wide * high)
    letters &= area > 0.15 * wide * high
    letters[0] = False
    pairs = 0
    for i in np.flatnonzero(letters):
        apart = np.abs(centres - centres[i])
        beside = (apart[:, 0] > 0.4 * high[i]) & (apart[:, 0] < 1.6 * high[i]) & (apart[:, 1] < 0.3 * high[i])
        pairs += int(np.any(beside & letters & (np.abs(high - high[i]) <= 0.35 * high[i])))
    return (0.3, 0.3, 0.6, 0.75)[pairs] if pairs < 4 else 0.9
