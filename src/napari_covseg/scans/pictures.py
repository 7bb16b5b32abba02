"""Pictures (PNG, JPEG, TIFF) as grey scans: one z per picture in natural file-name order."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    IMAGEDESCRIPTION,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    STRIPBYTECOUNTS,
    STRIPOFFSETS,
    TiffImageFile,
)

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

LOOKED_AT = 5
"""Of a folder's pictures so many, evenly spaced, say whether they are X-rays."""

LEAST_SIDE = 64
"""Pixels; smaller pictures look like anything."""

LONGEST_DESCRIPTION = 1 << 20
"""Characters of a TIFF's description that are looked at."""

UNKNOWN_SPACING = "Pictures have no known spacing: nothing is measured in ml, and exported labels carry 1 mm."


MASK_WORDS = re.compile(r"(?<![a-z])(masks?|seg|segmentations?|labels?|lbl|gt|annotations?|roi)(?![a-z])")
"""Words in the name of a picture that is a mask of another."""

FEW_GREYS, MANY_GREYS = 4, 8
"""A mask holds few grey values; a slice of a scan that is not blank holds many."""


def natural_order(path: Path, signed: bool = False) -> list[tuple[int, float, str]]:
    """Sort key: ``slice2.png`` comes before ``slice10.png``; if `signed`, ``z_-10.5`` before ``z_-2.0``."""
    number = r"((?<![0-9])-?[0-9]+(?:\.[0-9]+)?)" if signed else r"([0-9]+)"
    words = re.split(number, path.name.lower())
    return [(0, float(word), "") if n % 2 else (1, 0, word) for n, word in enumerate(words)]


def in_natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sort pictures by the numbers in their names.

    A hyphen before a number is its sign if it follows another separator, or if there are names with it
    and without it; in ``scan-1, scan-2`` it only separates.
    """
    paths = list(paths)
    names = [path.name.lower() for path in paths]
    with_hyphen = {found[1] for name in names if (found := re.match(r"(.*?)(?<![0-9])-[0-9]", name))}
    without = {found[1] for name in names if (found := re.match(r"([^0-9]*)(?<!-)[0-9]", name))}
    after_separator = any(prefix == "" or prefix[-1] in "_ =(,.+" for prefix in with_hyphen)
    signed = after_separator or bool(with_hyphen & without)
    return sorted(paths, key=lambda path: natural_order(path, signed))


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
            If one is not a picture, is damaged, in true colour or of another size, all are blank, or
            slices and masks cannot be told apart.
        """
        paths, masks = _without_masks(paths)
        with warnings.catch_warnings(action="ignore"):  # sizes are checked here, odd EXIF does not matter
            voxels, scaling, more = _stack(paths, source, values)
        if masks := in_natural_order([*masks, *more]):
            few = ", ".join(path.name for path in masks[:3])
            left_out = f"Left out {len(masks)} picture(s) that are masks, not slices: {few}."
        return Scan.placed(
            voxels,
            voxels.shape,
            np.eye(4),
            measured=False,
            intensity=scaling.intensity,
            name=source.stem if source.is_file() else source.resolve().name,
            path=str(source),
            notes=tuple(filter(None, (UNKNOWN_SPACING, scaling.note, left_out if masks else ""))),
        )


def first_page(path: Path) -> npt.NDArray[Any]:
    """Return a picture, or the first page of a TIFF, as a grey array (y, x). Raises ScanError."""
    with warnings.catch_warnings(action="ignore"):
        return next(_pages(path))


def _without_masks(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Part pictures from those that are called masks, if there are both."""
    masks = [path for path in paths if MASK_WORDS.search(path.stem.lower())]
    slices = [path for path in paths if path not in masks]
    return (slices, masks) if slices else (masks, [])


def _stack(
    paths: Sequence[Path], source: Path, values: Values | None
) -> tuple[npt.NDArray[np.int16], Scaling, list[Path]]:
    """Return the voxels, how they are understood, and the files that are masks."""
    read = {path: list(_pages(path)) for path in in_natural_order(paths)}
    masks = _masks_among(read, source)
    _refuse_xrays({path: pages[0] for path, pages in read.items() if path not in masks}, source)
    pages: list[npt.NDArray[Any]] = []
    for path, more in read.items():
        for page in more if path not in masks else ():
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
    return voxels, scaling, masks


def _refuse_xrays(first: dict[Path, npt.NDArray[Any]], source: Path) -> None:
    """Refuse several X-rays: they look alike, but are no slices of one scan."""
    if xrays := xrays_among(list(first), first.__getitem__):
        raise ScanError(
            f"{source.name} holds {len(first)} pictures that look like X-rays ({xrays[0].name} and "
            "others), which are no slices of one scan; open one of them or, if they are slices, save them as "
            "a TIFF stack."
        )


def xrays_among(paths: Sequence[Path], page: Callable[[Path], npt.NDArray[Any]]) -> list[Path]:
    """Look at a few of several pictures, and return the X-rays among them if most are such; else none.

    Parameters
    ----------
    paths : sequence of Path
    page : callable
        Returns a picture, grey (y, x).
    """
    from napari_covseg.scans.appearance import look  # here, because it takes long to load

    if len(paths) < 2:
        return []
    few = {path: page(path) for path in paths[:: -(-len(paths) // LOOKED_AT)]}
    large = [path for path, values in few.items() if min(values.shape) >= LEAST_SIDE]
    xrays = [path for path in large if look(few[path], "grey").kind in ("chest X-ray", "X-ray")]
    return xrays if 2 * len(xrays) > len(few) else []


def _masks_among(read: dict[Path, list[npt.NDArray[Any]]], source: Path) -> list[Path]:
    """Return the pictures that are masks by their few grey values, where others have many.

    Names that differ only in their numbers are of one kind: an empty mask is one by its fellows.

    Raises
    ------
    ScanError
        If slices and masks are called the same.
    """
    if len(read) < 2:
        return []
    kinds: dict[str, list[int]] = {}
    for path, pages in read.items():
        greys = max(len(np.unique(page)) for page in pages)
        kinds.setdefault(re.sub(r"[0-9]+", "#", path.name.lower()), []).append(greys)
    if max(map(max, kinds.values())) <= MANY_GREYS:
        return []
    few = {kind for kind, counts in kinds.items() if 1 < max(counts) <= FEW_GREYS}
    for counts in kinds.values():
        masks = sum(1 < count <= FEW_GREYS for count in counts)
        if masks >= 2 and 4 * masks >= len(counts) and max(counts) > MANY_GREYS:
            raise ScanError(
                f"{source.name} holds slices and masks of the same names; keep slices and masks in "
                "folders of their own."
            )
    return [path for path in read if re.sub(r"[0-9]+", "#", path.name.lower()) in few]


def _pages(path: Path) -> Iterator[npt.NDArray[Any]]:
    """Yield a picture, or each page of a TIFF, as a grey array (y, x)."""
    image, pages = _opened(path)
    with image:
        meant = _meant(path, image, pages)
        try:
            behind = _behind_first(path, image, pages, meant.slices)
        except (ValueError, TypeError, OverflowError) as error:  # tags that are no numbers
            raise _damaged(path) from error
        if behind:
            yield from map(meant.calibrated, behind)
            return
        for page in range(pages):
            try:
                image.seek(page)
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError("a page of impossible size")
                grey, colour = _grey(image)
            except Exception as error:  # decoders meet damaged data with any kind of exception
                raise _damaged(path) from error
            grey = meant.calibrated(grey)
            if colour:
                raise ScanError(
                    f"{path.name} is a true colour image, not a grey CT slice; save it without "
                    "colours or overlays."
                )
            if not np.isfinite(grey).all():
                raise _not_numbers(path)
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
        values = np.asarray(image)
        white_is_0 = isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
        if white_is_0 and values.dtype == np.uint16:  # of 8 bits it is inverted already
            values = np.iinfo(values.dtype).max - values
        return values, False
    if image.mode in ("LA", "La", "1"):
        return np.asarray(image.convert("L")), False
    rgb = np.asarray(image.convert("RGB"))
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    coloured = float(np.mean(spread > COLOURED)) > COLOURED_PART
    return np.asarray(image.convert("RGB").convert("L")), coloured


@dataclass(frozen=True)
class _Meant:
    """What the description of a TIFF says of it beyond its pages."""

    slices: int
    slope: float = 1.0
    intercept: float = 0.0

    def calibrated(self, page: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what the grey values stand for: ImageJ stores signed numbers as unsigned ones."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return page
        return page * self.slope + self.intercept


def _meant(path: Path, image: Image.Image, pages: int) -> _Meant:
    """Read the description that ImageJ, tifffile or OME leave in a TIFF.

    Raises
    ------
    ScanError
        If it has several channels or time points: their slices would alternate; if ImageJ's numbers
        contradict each other.
    """
    if not isinstance(image, TiffImageFile):
        return _Meant(pages)
    text = str(image.tag_v2.get(IMAGEDESCRIPTION, ""))[:LONGEST_DESCRIPTION]
    try:
        slices, others, slope, intercept = _described(text, [image.height, image.width])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        if not text.startswith("ImageJ="):
            return _Meant(pages)  # somebody's own words
        raise ScanError(
            f"{path.name} says in ImageJ's words, which contradict each other or are damaged, how many "
            "slices it holds; save it as a TIFF with a page for each slice, or as NIfTI."
        ) from None
    if others > 1:
        raise ScanError(
            f"{path.name} holds {others} channels or time points; save one of them as a stack of its own."
        )
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        slope, intercept = 1.0, 0.0
    return _Meant(max(slices, 1), slope, intercept)


def _described(text: str, plane: list[int]) -> tuple[int, int, float, float]:
    """Slices, channels times time points, slope and intercept that a description names."""
    if text.startswith("ImageJ="):
        fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        others = int(fields.get("channels", 1)) * int(fields.get("frames", 1))
        # A stack whose axis was never named is one of frames to ImageJ, or of channels.
        images = int(fields.get("images", int(fields.get("slices", 1)) * others))
        if "slices" not in fields and others == images:
            others = 1
        elif images != int(fields.get("slices", images // others)) * others:
            raise ValueError
        straight = fields.get("cf", "") == "0" or ("cf" not in fields and "c0" in fields)
        slope, intercept = (float(fields.get(key, d)) for key, d in (("c1", "1"), ("c0", "0")))
        line = (slope, intercept) if straight else (1.0, 0.0)
        return images, others, *line
    if text.startswith('{"shape"'):
        sizes = [int(size) for size in json.loads(text)["shape"]]
        more = [size for size in sizes[:-2] if size != 1] if sizes[-2:] == plane else []
        return math.prod(more), math.prod(more[:-1]), 1.0, 0.0
    if found := re.search(r"<Pixels\b[^>]*>", text):
        sizes = [int(size) for size in re.findall(r'\bSize[CT]="([0-9]+)"', found[0])]
        return 1, math.prod(sizes), 1.0, 0.0
    return 1, 1, 1.0, 0.0


def _behind_first(path: Path, image: Image.Image, pages: int, slices: int) -> list[npt.NDArray[Any]]:
    """Return slices that follow the first page's without pages of their own, as ImageJ writes large stacks.

    None where each slice has a page.

    Raises
    ------
    ScanError
        If the file cannot hold them, has several pages, or the first is compressed; or if slices lie
        there of which it does not say anything.
    """
    if not isinstance(image, TiffImageFile) or slices < pages:
        return []
    tags = image.tag_v2
    kind = {1: "u", 2: "i", 3: "f"}.get(_first(tags.get(SAMPLEFORMAT, 1)))
    bits, offset = int(_first(tags.get(BITSPERSAMPLE, 1))), int(_first(tags.get(STRIPOFFSETS, 0)))
    ends = offset + np.cumsum(tags.get(STRIPBYTECOUNTS, 0))
    in_order = np.array_equal(np.ravel(tags.get(STRIPOFFSETS, 0))[1:], ends[:-1])
    plain = pages == tags.get(COMPRESSION, 1) == tags.get(SAMPLESPERPIXEL, 1) == 1 and bits in (8, 16, 32)
    held, rest = divmod(path.stat().st_size - offset, max(1, image.width * image.height * bits // 8))
    if slices == pages:
        if plain and in_order and held > 1 and rest == 0:
            raise ScanError(
                f"{path.name} holds {held} slices and describes only one; save it as a TIFF with a page for "
                "each slice, or as NIfTI."
            )
        return []
    if not (plain and in_order and kind and offset > 0) or held < slices:
        raise ScanError(
            f"{path.name} says that it holds {slices} slices, of which only {pages} can be read; save it "
            "as a TIFF with a page for each slice, or as NIfTI."
        )
    dtype = np.dtype(f"{'>' if tags.prefix == b'MM' else '<'}{kind}{bits // 8}")
    shape = (slices, image.height, image.width)
    values = np.fromfile(path, dtype, math.prod(shape), offset=offset).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(values).all():
        raise _not_numbers(path)
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 and dtype.kind == "u":
        values = np.iinfo(dtype).max - values
    return list(values)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _not_numbers(path: Path) -> ScanError:
    return ScanError(
        f"{path.name} holds values that are not numbers (NaN or infinite); save the picture again."
    )


def _mixed_sizes(path: Path, size: tuple[int, ...], before: tuple[int, ...]) -> ScanError:
    found = f"{size[1]} x {size[0]} in {path.name} and {before[1]} x {before[0]} before it"
    return ScanError(f"The pictures have mixed sizes ({found}); keep slices of one scan in a folder.")


def _damaged(path: Path) -> ScanError:
    return ScanError(f"{path.name} is a truncated or damaged picture; copy it again from where it came from.")
