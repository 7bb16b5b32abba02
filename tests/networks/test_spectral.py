"""Spectral pooling is one thing in both its forms, keeps the mean and is computed in full precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_covseg.networks.spectral import by_matrices, spectral_pool, spectral_smooth

lengths = st.integers(1, 40)


def by_fft(x: Tensor, band: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Do what `by_matrices` does with the fast Fourier transform: what it is measured against."""
    spectrum = torch.fft.fft2(x.float(), norm="forward")
    spectrum = _keep(_keep(spectrum, -2, band[0], size[0]), -1, band[1], size[1])
    out: Tensor = torch.fft.ifft2(spectrum, norm="forward").real
    return out.to(x.dtype)


def _keep(spectrum: Tensor, axis: int, band: int, size: int) -> Tensor:
    """Keep the lowest `band` frequencies along `axis` as the spectrum of `size` samples."""
    low = (band - 1) // 2
    positive = spectrum.narrow(axis, 0, low + 1)
    negative = spectrum.narrow(axis, spectrum.shape[axis] - low, low)
    missing = size - 2 * low - 1
    shape = list(spectrum.shape)
    shape[axis] = missing
    between = spectrum.new_zeros(shape)
    if band % 2 == 0:
        between.narrow(axis, 0, 1).add_(spectrum.narrow(axis, band // 2, 1) / 2)
        outermost = spectrum.narrow(axis, spectrum.shape[axis] - band // 2, 1) / 2
        between.narrow(axis, missing - 1, 1).add_(outermost)
    return torch.cat([positive, between, negative], axis)


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int]:
    """A length, how many frequencies to keep of it, and how finely to sample them."""
    length = draw(lengths)
    band = draw(st.integers(1, length))
    return length, band, draw(st.integers(band, 50))


@settings(max_examples=60, deadline=None)
@given(axes(), axes(), st.integers(0, 1000))
def test_matrices_do_what_the_fourier_transform_does(
    rows: tuple[int, int, int], columns: tuple[int, int, int], seed: int
) -> None:
    x = torch.rand(2, 2, rows[0], columns[0], generator=torch.Generator().manual_seed(seed))
    band, size = (rows[1], columns[1]), (rows[2], columns[2])
    found = by_matrices(x, band, size)
    assert found.shape == (2, 2, *size)
    torch.testing.assert_close(found, by_fft(x, band, size), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.mean((2, 3)), x.mean((2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(256, 256), (97, 131), (7, 512)])
def test_both_forms_agree_at_the_sizes_of_slices(size: tuple[int, int]) -> None:
    x = torch.rand(1, 2, *size)
    half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    torch.testing.assert_close(spectral_pool(x), by_fft(x, half, half), rtol=0, atol=1e-5)
    torch.testing.assert_close(spectral_smooth(x), by_fft(x, half, size), rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(lengths, lengths)
def test_keeping_all_frequencies_changes_nothing(rows: int, columns: int) -> None:
    x = torch.rand(1, 1, rows, columns)
    torch.testing.assert_close(by_matrices(x, (rows, columns), (rows, columns)), x, rtol=0, atol=1e-5)


def wave(period: float, size: int = 32) -> Tensor:
    return torch.cos(2 * torch.pi / period * torch.arange(size))[None, None, None].expand(1, 1, size, size)


def test_slow_waves_stay_and_fast_ones_go() -> None:
    torch.testing.assert_close(spectral_smooth(wave(8)), wave(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(spectral_pool(wave(8)), wave(4, 16), rtol=0, atol=1e-5)
    for pooled in (spectral_smooth(wave(32 / 9)), spectral_pool(wave(2))):
        torch.testing.assert_close(pooled, torch.zeros_like(pooled), rtol=0, atol=1e-5)


def test_the_outermost_of_an_even_number_of_frequencies_counts_half() -> None:
    torch.testing.assert_close(spectral_smooth(wave(4)), wave(4) / 2, rtol=0, atol=1e-5)


def test_smoothing_by_an_odd_band_twice_changes_nothing_more() -> None:
    x = torch.rand(1, 3, 21, 13)
    torch.testing.assert_close(spectral_smooth(spectral_smooth(x)), spectral_smooth(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pool", [spectral_pool, spectral_smooth])
def test_autocast_does_not_reach_it(pool: type) -> None:
    x = torch.rand(2, 3, 64, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool(x)
        half = pool(x.bfloat16())
    assert torch.equal(found, pool(x))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), pool(x), rtol=0, atol=0.02)


def test_a_map_seen_at_inference_can_be_learned_from_later() -> None:
    with torch.inference_mode():
        spectral_pool(torch.rand(1, 1, 46, 47))
    x = torch.rand(1, 1, 46, 47, requires_grad=True)
    spectral_pool(x).square().sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0
