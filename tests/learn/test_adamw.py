from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor, nn

from napari_covseg.learn.finetune import AdamW


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))


def loss(net: nn.Module, step: int) -> Tensor:
    images = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(step))
    return net(images).square().mean()  # type: ignore[no-any-return]


def test_its_steps_are_torchs_own() -> None:
    ours, torchs = network(), network()
    start = torch.cat([p.detach().flatten() for p in ours.parameters()])
    optimiser = AdamW(list(ours.parameters()), weight_decay=0.1)
    theirs = torch.optim.AdamW(torchs.parameters(), weight_decay=0.1)
    for step in range(20):
        rate = 1e-2 / (step + 1)
        loss(ours, step).backward()
        optimiser.step(rate)
        theirs.param_groups[0]["lr"] = rate
        theirs.zero_grad()
        loss(torchs, step).backward()
        theirs.step()
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.allclose(torch.cat([p.detach().flatten() for p in ours.parameters()]), start)


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
