"""AdamW without what torch's own loads: seconds, in a process that a person waits for."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

_FIRST, _SECOND = 0.9, 0.999
_EPSILON = 1e-8


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    The first optimiser of `torch.optim` in a process imports torch's compiler, which took
    four seconds; the steps are the same.

    Parameters
    ----------
    parameters : sequence of Tensor
    weight_decay : float
    """

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._weight_decay = weight_decay
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = 0

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Change every parameter that has a gradient, in place."""
        self._steps += 1
        rate = learning_rate / (1 - _FIRST**self._steps)
        scale = sqrt(1 - _SECOND**self._steps)
        for parameter, mean, square in zip(self._parameters, self._means, self._squares, strict=True):
            gradient = parameter.grad
            if gradient is None:
                continue
            parameter.mul_(1 - learning_rate * self._weight_decay)
            mean.lerp_(gradient, 1 - _FIRST)
            square.mul_(_SECOND).addcmul_(gradient, gradient, value=1 - _SECOND)
            parameter.addcdiv_(mean, (square.sqrt() / scale).add_(_EPSILON), value=-rate)
