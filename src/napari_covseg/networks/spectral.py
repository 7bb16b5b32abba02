"""Pooling in the frequency domain (Rippel 2015), by matrices.

It keeps the lowest frequencies of a map and samples what is left on a coarser grid, or on
its own. It is scaled so that a map keeps its mean at any size, which the unitary transform of
Punn 2022 (equation 2) does not. Of an even number of frequencies the outermost is shared
equally between both signs, so that real maps stay real without anything being thrown away.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


def spectral_pool(x: Tensor) -> Tensor:
    """Halve a map by keeping the lower half of the frequencies along each axis.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
        Of any float type; computed in float32.

    Returns
    -------
    Tensor, shape (N, C, ceil(H / 2), ceil(W / 2)), type of `x`
        With the channels' means of `x`.
    """
    rows, columns = (x.shape[-2] + 1) // 2, (x.shape[-1] + 1) // 2
    return by_matrices(x, (rows, columns), (rows, columns))


def spectral_smooth(x: Tensor) -> Tensor:
    """Keep the lower half of the frequencies along each axis, and the size; otherwise as `spectral_pool`."""
    rows, columns = (x.shape[-2] + 1) // 2, (x.shape[-1] + 1) // 2
    return by_matrices(x, (rows, columns), (x.shape[-2], x.shape[-1]))


def by_matrices(x: Tensor, band: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Keep `band` frequencies of the rows and columns and sample them at `size`, by two real matrices.

    Equal to what the fast Fourier transform gives, and made of products alone: graphs for other runtimes
    have no complex numbers.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
        Of any float type; computed in float32, also where autocast is on.
    band : tuple of int
        How many of the H and of the W frequencies stay, between 1 and all.
    size : tuple of int
        Height and width of the answer, at least `band`.

    Returns
    -------
    Tensor, shape (N, C, *size), type of `x`
    """
    down = _matrix(x.shape[-2], band[0], size[0], x.device)
    across = _matrix(x.shape[-1], band[1], size[1], x.device)
    if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):  # half precision would lose the fine frequencies
            return _multiply(x, down, across)
    return _multiply(x, down, across)


def _multiply(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    out: Tensor = down @ (x.float() @ across.T)
    return out.to(x.dtype)


def _matrix(length: int, band: int, size: int, device: torch.device) -> Tensor:
    """Return the float32 matrix (size, length) that keeps `band` frequencies of `length` samples."""
    if torch.compiler.is_compiling():  # sizes may be symbols, which no cache can hold
        return _build_matrix(length, band, size, device, torch.float32)
    return _kept_matrix(length, band, size, device)


@lru_cache(maxsize=64)
def _kept_matrix(length: int, band: int, size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # it may serve a training later
        return _build_matrix(length, band, size, torch.device("cpu"), torch.float64).float().to(device)


def _build_matrix(length: int, band: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Build the matrix as an analysis at `length` points times a synthesis at `size` points."""
    frequencies = torch.arange(band // 2 + 1, device=device)
    once = (frequencies == 0) | (2 * frequencies == band)  # all others occur with either sign
    weights = torch.where(once, 1.0, 2.0).to(dtype) / length
    cosines, sines = _waves(length, frequencies, dtype)
    again_cosines, again_sines = _waves(size, frequencies, dtype)
    return (again_cosines * weights) @ cosines.T + (again_sines * weights) @ sines.T


def _waves(points: int, frequencies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the cosines and the sines of the frequencies, each (points, len(frequencies))."""
    steps = torch.arange(points, device=frequencies.device)[:, None] * frequencies
    whole_turns = torch.full_like(steps, points)  # a tensor: ONNX knows no remainder of a number
    angles = (steps % whole_turns).to(dtype) * (2 * math.pi / points)  # small ones lose nothing to float32
    return torch.cos(angles), torch.sin(angles)
