"""Pictures (PNG, JPEG, TIFF) as grey scans: one z per picture in natural file-name order."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_covseg.errors import ScanError
from napari_covseg.scans.intensity import Census, Scaling, to_int16, understand
from napari_covseg.scans.scan import Format, Scan, Values

MOST_PIXELS = 1 << 26
"""In one picture; 8192 x 8192. A larger size comes from a damaged header."""

LARGEST_RATIO = 8800
"""Pixels to a byte of a file; a decoder cannot make more of them."""

COLOURED = 24
"""A pixel is coloured if its channels differ by more than this: JPEG alone makes them differ by a few."""

COLOURED_PART = 0.01
"""A grey picture may carry a coloured arrow or letter, but not on more than this part of it."""

UNKNOWN_SPACING = "Pictures have no known spacing: nothing is measured in ml, and exported labels carry 1 mm."


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which ``slice2.png`` comes before ``slice10.png``."""
    words = re.split(r"([0-9]+)", path.name.lower())
    return [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in words]


class Pictures(Format):
    """PNG, JPEG, TIFF and BMP: a picture is a slice, a folder of them or a TIFF of several pages a stack."""

    name = "pictures"
    suffixes = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

    def recognises(self, path: Path) -> bool:
        """Whether the name is that of a picture file."""
        return super().recognises(path) and not path.name.startswith(".")

    def read(self, path: Path, values: Values | None = None) -> Scan:
        """Read one picture file as a scan; see `read_stack`."""
        return self.read_stack([path], path, values)

    def read_stack(self, paths: Sequence[Path], source: Path, values: Values | None = None) -> Scan:
        """Read picture files as one scan.

        Parameters
        ----------
        paths : sequence of Path
            The pictures; z follows their natural file-name order.
        source : Path
            The folder or file that was asked for.
        values : {"HU", "HU+1024", "grey"}, optional
            As in `formats.read_scan`; pictures of 8 bits are grey as stored.

        Raises
        ------
        ScanError
            If one is not a picture, is damaged, in true colour or of another size, or all are blank.
        """
        paths = sorted(paths, key=natural_order)
        with warnings.catch_warnings(action="ignore"):  # sizes are checked here, odd EXIF does not matter
            voxels, scaling = _stack(paths, source, values)
        return Scan.placed(
            voxels,
            voxels.shape,
            np.eye(4),
            measured=False,
            intensity=scaling.intensity,
            name=source.stem if source.is_file() else source.resolve().name,
            path=str(source),
            notes=tuple(filter(None, (UNKNOWN_SPACING, scaling.note))),
        )


def _stack(
    paths: Sequence[Path], source: Path, values: Values | None
) -> tuple[npt.NDArray[np.int16], Scaling]:
    pages: list[npt.NDArray[Any]] = []
    for path in paths:
        for page in _pages(path):
            if page.shape != (pages or [page])[0].shape:
                raise _mixed_sizes(path, page.shape, pages[0].shape)
            pages.append(page)
    census = Census.sum(map(Census.of, pages))
    if census.low == census.high:
        raise ScanError(
            f"{source.name} holds the value {census.low:g} everywhere, so there is no picture in it; choose "
            "another file."
        )
    eight_bit = all(page.dtype == np.uint8 for page in pages)
    scaling = Scaling("grey") if eight_bit else understand(census, values)
    voxels = np.empty((len(pages), *pages[0].shape), np.int16)
    for page, plane in zip(pages, voxels, strict=True):
        to_int16(scaling.apply(page), plane)
    return voxels, scaling


def _pages(path: Path) -> Iterator[npt.NDArray[Any]]:
    """Yield a picture, or each page of a TIFF, as a grey array (y, x)."""
    image, pages = _opened(path)
    with image:
        for page in range(pages):
            try:
                image.seek(page)
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError("a page of impossible size")
                grey, colour = _grey(image)
            except Exception as error:  # decoders meet damaged data with any kind of exception
                raise _damaged(path) from error
            if colour:
                raise ScanError(
                    f"{path.name} is a true colour image, not a grey CT slice; save it without "
                    "colours or overlays."
                )
            if not np.isfinite(grey).all():
                raise ScanError(
                    f"{path.name} holds values that are not numbers (NaN or infinite); save the picture "
                    "again."
                )
            yield grey


def _opened(path: Path) -> tuple[Image.Image, int]:
    """Open a picture, not yet decoded, and count its pages; only a TIFF is taken as having several."""
    try:
        image = Image.open(path)
        pages = int(getattr(image, "n_frames", 1)) if path.suffix.lower() in (".tif", ".tiff") else 1
    except FileNotFoundError as error:
        raise ScanError(f"{path} does not exist; check the path.") from error
    except Exception as error:  # as above, and a name may promise a picture that the bytes do not keep
        raise ScanError(
            f"{path.name} is not a picture that can be read, or it is damaged; save it again as PNG."
        ) from error
    if not 0 < image.width * image.height <= MOST_PIXELS:
        raise ScanError(
            f"{path.name} claims {image.width} x {image.height} pixels, which no CT slice has; save the "
            "slice again."
        )
    if pages * image.width * image.height > path.stat().st_size * LARGEST_RATIO:
        raise _damaged(path)
    return image, pages


def _grey(image: Image.Image) -> tuple[npt.NDArray[Any], bool]:
    """Grey values (y, x) of the current page and whether it is in true colour."""
    if image.mode.startswith(("I", "F")) or image.mode == "L":
        return np.asarray(image), False
    if image.mode in ("LA", "La", "1"):
        return np.asarray(image.convert("L")), False
    rgb = np.asarray(image.convert("RGB"))
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    coloured = float(np.mean(spread > COLOURED)) > COLOURED_PART
    return np.asarray(image.convert("RGB").convert("L")), coloured


def _mixed_sizes(path: Path, size: tuple[int, ...], before: tuple[int, ...]) -> ScanError:
    found = f"{size[1]} x {size[0]} in {path.name} and {before[1]} x {before[0]} before it"
    return ScanError(f"The pictures have mixed sizes ({found}); keep slices of one scan in a folder.")


def _damaged(path: Path) -> ScanError:
    return ScanError(f"{path.name} is a truncated or damaged picture; copy it again from where it came from.")
