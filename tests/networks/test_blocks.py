"""What the networks share: the mean of heads, channel gates, and the way to a skip's size."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_covseg.networks.blocks import SqueezeExcite, mean_logits, resize_to

LOGITS = st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=5)


@given(LOGITS)
def test_the_mean_of_heads_is_that_of_their_probabilities(values: list[float]) -> None:
    heads = [torch.tensor([value], dtype=torch.float64) for value in values]
    expected = torch.stack(heads).sigmoid().mean(0)
    torch.testing.assert_close(mean_logits(heads).sigmoid(), expected, rtol=1e-9, atol=1e-12)


def test_the_mean_of_certain_heads_is_certain_and_a_number() -> None:
    far = torch.tensor([400.0])
    assert mean_logits([far, far]).item() == 400
    assert mean_logits([-far, -far]).item() == -400
    assert abs(mean_logits([far, -far]).item()) < 1e-4


def test_a_channel_gate_scales_whole_channels_by_less_than_one() -> None:
    gate = SqueezeExcite(4)  # fewer channels than the reduction
    assert [tuple(p.shape) for p in gate.parameters()] == [(1, 4), (1,), (4, 1), (4,)]
    x = torch.rand(2, 4, 5, 7) + 0.1
    scale = gate(x) / x
    assert ((scale > 0) & (scale < 1)).all()
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale))


def test_a_map_of_the_right_size_is_not_touched() -> None:
    x = torch.rand(1, 2, 6, 8)
    assert resize_to(x, torch.zeros(1, 5, 6, 8)) is x
    assert resize_to(x, torch.zeros(1, 5, 7, 9)).shape == (1, 2, 7, 9)
