"""The guises in which one slice comes from different sites, put on at random while training.

Whoever exports a slice chooses a window, equalises or not, crops, turns, inverts, compresses. A network
that has met all of it need not be told which it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.learn.training_set import UNKNOWN

Slice = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

LUNG_WINDOWS = ((-1350.0, 150.0), (-1000.0, 400.0), (-1200.0, 200.0))
"""HU that sites export lungs in, from black to white."""
MEDIASTINAL_WINDOW = (-160.0, 240.0)
WHOLE_RANGE = (-1024.0, 1500.0)


@dataclass(frozen=True)
class Guises:
    """Chances and ranges; the defaults are what the shipped model is taught with.

    Attributes
    ----------
    mediastinal, whole : float
        Share of HU slices in a mediastinal window, and scaled by their own range; the others
        come in a lung window. Ground-glass cannot be seen in a mediastinal window, so that what is
        labelled inside the lungs is unknown there.
    equalise : float
        Share that is equalised by CLAHE with a ``clipLimit`` of 1 to 8; of slices that already are, a
        tenth of it.
    invert, quarter, mirror : float
        Share that is inverted, turned by quarters, mirrored.
    crop : float
        Share that is cropped to the lungs, with a margin of up to a third, where they are known.
    zoom, stretch, turn, shift : float
        Largest factor either way, of both sides and of one against the other; degrees; share of a side.
    blur, noise, jpeg : float
        Share that is blurred, gets noise, goes through a JPEG of quality 30 to 95.
    gamma : float
        Largest exponent either way.
    """

    mediastinal: float = 0.06
    whole: float = 0.2
    equalise: float = 0.5
    invert: float = 0.1
    quarter: float = 0.4
    mirror: float = 0.3
    crop: float = 0.25
    zoom: float = 1.35
    stretch: float = 1.25
    turn: float = 15.0
    shift: float = 0.1
    blur: float = 0.2
    noise: float = 0.3
    jpeg: float = 0.3
    gamma: float = 1.5

    def __call__(
        self,
        values: npt.NDArray[np.generic],
        kind: str,
        masks: Mask,
        size: int,
        random: np.random.Generator,
        outputs: tuple[str, ...],
    ) -> tuple[Slice, Mask]:
        """Put a guise on a slice.

        Parameters
        ----------
        values : ndarray, shape (side, side)
            HU, or grey from 0 to 255.
        kind : {"HU", "grey", "equalised"}
        masks : ndarray of uint8, shape (c, side, side)
            See `learn.training_set.TrainingSet.masks`.
        size : int
            Height and width of what comes out.
        random : numpy Generator
        outputs : tuple of str
            The channels of the masks.

        Returns
        -------
        image : ndarray of float32, shape (size, size)
            In [0, 1].
        masks : ndarray of uint8, shape (c, size, size)
        """
        image, hidden = self._window(values.astype(np.float32), kind, random)
        if random.random() < self.equalise * (0.1 if kind == "equalised" else 1.0):
            image = equalised(image, float(random.uniform(1, 8)))
        lungs = masks[outputs.index("lungs")] if "lungs" in outputs else None
        matrix = self._place(image.shape[0], lungs, size, random)
        turned = cv2.warpAffine(
            image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
            borderValue=float(image.min()),
        )  # fmt: skip
        moved = np.empty((len(masks), size, size), np.uint8)
        for mask, out, name in zip(masks, moved, outputs, strict=True):
            # what lies beyond the slice is air, in which there is nothing to be found
            beyond = UNKNOWN if (mask == UNKNOWN).all() else 0
            cv2.warpAffine(
                mask, matrix, (size, size), dst=out, flags=cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT, borderValue=beyond,
            )  # fmt: skip
            if hidden and name not in ("lungs", "pleural effusion"):
                out[out == 1] = UNKNOWN
        return self._degrade(np.asarray(turned, np.float32), random), moved

    def _window(self, values: Slice, kind: str, random: np.random.Generator) -> tuple[Slice, bool]:
        """Scale to [0, 1]; and whether the lungs are black all over now."""
        chance, hidden = random.random(), False
        if kind != "HU":
            low, high = float(values.min()), float(values.max())
        elif chance < self.mediastinal:
            (low, high), hidden = _jittered(MEDIASTINAL_WINDOW, random), True
        elif chance < self.mediastinal + self.whole:
            low = max(WHOLE_RANGE[0], float(values.min()))
            high = min(WHOLE_RANGE[1], float(values.max()))
        else:
            low, high = _jittered(LUNG_WINDOWS[random.integers(len(LUNG_WINDOWS))], random)
        scaled = np.clip((values - low) / max(high - low, 1.0), 0, 1)
        return scaled.astype(np.float32), hidden

    def _place(
        self, side: int, lungs: Mask | None, size: int, random: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Return the affine matrix, (2, 3), from slice to picture in pixels."""
        centre, span = np.array([side / 2, side / 2]), np.array([side, side], float)
        if lungs is not None and random.random() < self.crop:
            left, top, width, height = cv2.boundingRect((lungs == 1).astype(np.uint8))
            if min(width, height) > side / 8:
                centre = np.array([left + width / 2, top + height / 2])
                span = np.array([width, height]) * (1 + random.uniform(0, 0.33, 2))
                if random.random() < 0.5:  # the other half of such crops are stretched to a square
                    span[:] = span.max()
        zoom = np.exp(random.uniform(-1, 1) * np.log(self.zoom))
        stretch = np.exp(random.uniform(-1, 1) * np.log(self.stretch) / 2)
        scale = size / span * zoom * np.array([stretch, 1 / stretch])
        angle = np.radians(random.uniform(-self.turn, self.turn))
        if random.random() < self.quarter:
            angle += random.integers(1, 4) * np.pi / 2
        flip = -1.0 if random.random() < self.mirror else 1.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = turn @ np.diag([flip, 1.0]) @ np.diag(scale)
        offset = size / 2 + random.uniform(-self.shift, self.shift, 2) * size - linear @ centre
        return np.concatenate([linear, offset[:, None]], 1)

    def _degrade(self, image: Slice, random: np.random.Generator) -> Slice:
        gamma = np.exp(random.uniform(-1, 1) * np.log(self.gamma))
        image = (np.clip(image, 0, 1) ** gamma).astype(np.float32)
        if random.random() < self.blur:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(random.uniform(0.4, 1.2))), np.float32)
        if random.random() < self.noise:
            grain = random.standard_normal(image.shape) * random.uniform(0.01, 0.06)
            image = np.asarray(image + grain, np.float32)
        if random.random() < self.jpeg:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(30, 96))]
            _, packed = cv2.imencode(".jpg", (np.clip(image, 0, 1) * 255).astype(np.uint8), quality)
            image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.float32)
            image = image / np.float32(255)
        if random.random() < self.invert:
            image = 1 - image
        return np.clip(image, 0, 1).astype(np.float32)


def equalised(image: Slice, clip: float) -> Slice:
    """Return a picture, float32 in [0, 1], after CLAHE with 8 x 8 tiles."""
    grey = (image * 255).astype(np.uint8)
    return np.asarray(cv2.createCLAHE(clip, (8, 8)).apply(grey)).astype(np.float32) / np.float32(255)


def _jittered(window: tuple[float, float], random: np.random.Generator) -> tuple[float, float]:
    low, high = window
    shift, widen = random.uniform(-60, 60), np.exp(random.uniform(-0.15, 0.15))
    middle, half = (low + high) / 2 + shift, (high - low) / 2 * widen
    return middle - half, middle + half
