from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_covseg.learn.finetune import AdamW


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1)).double()


def loss(net: nn.Module, step: int) -> Tensor:
    images = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    return net(images).square().mean()  # type: ignore[no-any-return]


def test_its_steps_are_those_of_the_paper() -> None:
    """Algorithm 2 of Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019."""
    net = network()
    weights = [value.detach().numpy().copy() for value in net.parameters()]
    start = [weight.copy() for weight in weights]
    first, second = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    optimiser = AdamW(list(net.parameters()), weight_decay=0.1)
    for step in range(1, 21):
        rate = 1e-2 / step
        loss(net, step).backward()
        gradients = [value.grad.numpy().copy() for value in net.parameters() if value.grad is not None]
        optimiser.step(rate)
        for weight, gradient, m, v in zip(weights, gradients, first, second, strict=True):
            m[:] = 0.9 * m + 0.1 * gradient
            v[:] = 0.999 * v + 0.001 * gradient**2
            adam = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            weight -= rate * (adam + 0.1 * weight)
    for value, weight, before in zip(net.parameters(), weights, start, strict=True):
        np.testing.assert_allclose(value.detach(), weight, rtol=1e-9)
        assert not np.allclose(weight, before)


@pytest.mark.slow
def test_it_loads_no_compiler() -> None:
    program = (
        "import sys, torch\n"
        "from napari_covseg.learn.finetune import AdamW\n"
        "weight = torch.ones(3, requires_grad=True)\n"
        "optimiser = AdamW([weight], 0.0)\n"
        "weight.sum().backward()\n"
        "torch.nn.utils.clip_grad_norm_([weight], 1.0)\n"
        "optimiser.step(1e-3)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
