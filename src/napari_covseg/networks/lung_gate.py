"""What the two networks share that look for lesions inside the lungs which they found themselves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class LungGate(nn.Module):
    """Turn lung logits into what an image is multiplied by.

    While training always the probability, because no gradient flows through a mask.

    Parameters
    ----------
    gate : {"soft", "hard"}
        At inference the probability, or the mask where it is above 0.5.
    dilation : int
        Pixels by which the mask is grown on each side, so that lesions at the pleura are not cut off.

    Raises
    ------
    ValueError
        If `gate` is neither, or `dilation` is negative.
    """

    def __init__(self, gate: str, dilation: int = 0) -> None:
        super().__init__()
        if gate not in ("soft", "hard"):
            raise ValueError(f"gate is 'soft' or 'hard', not {gate!r}")
        if dilation < 0:
            raise ValueError(f"the gate's dilation is 0 or more pixels, not {dilation}")
        self.gate = gate
        self.dilation = dilation

    def forward(self, lungs: Tensor) -> Tensor:
        """Compute the gate, in [0, 1], from logits; both (N, 1, H, W)."""
        if self.training or self.gate == "soft":
            return lungs.sigmoid()
        mask = (lungs > 0).to(lungs.dtype)
        if self.dilation:
            mask = F.max_pool2d(mask, 2 * self.dilation + 1, 1, self.dilation)
        return mask


def check_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """Return `outputs`, of a network with a lung and a lesion part.

    Raises
    ------
    ValueError
        If they are not the lesion, or the lesion and the lungs.
    """
    if sorted(outputs) not in (["lesion"], ["lesion", "lungs"]):
        raise ValueError(f"the outputs are 'lesion', with or without 'lungs', not {tuple(outputs)}")
    return tuple(outputs)


def name_logits(outputs: Sequence[str], lungs: Tensor, lesion: Tensor, training: bool) -> dict[str, Tensor]:
    """Return the logits by name; while training the lungs as ``"lungs@aux"`` if they are no output."""
    logits = {name: lungs if name == "lungs" else lesion for name in outputs}
    if training and "lungs" not in outputs:
        logits["lungs@aux"] = lungs
    return logits
