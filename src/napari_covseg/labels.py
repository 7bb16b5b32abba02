"""What the label values mean: names and colours, the same in every room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Group = Literal["lungs", "lesions"]
Task = Literal["segmentation", "recognition", "manifestations"]
"""What a network is for: to label pixels, to tell of which class a picture is, to name a slice's findings."""

Modality = Literal["X-ray", "CT"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True)
class Label:
    """One value of a label map.

    Attributes
    ----------
    value : int
        Value in the ``uint8`` label array of a case; 0 is background.
    name : str
        The field's term, as a person reads it.
    colour : tuple of int
        sRGB, 0-255.
    inside_lungs : bool
        Whether the finding lies inside the (dilated) lungs. Effusion does not have to.
    """

    value: int
    name: str
    colour: tuple[int, int, int]
    inside_lungs: bool = True


# told apart by the colour-blind and in grey: benchmarks/palette.py prints how far
LUNGS: tuple[Label, ...] = (
    Label(1, "right lung", (30, 70, 230)),
    Label(2, "left lung", (255, 235, 120)),
    Label(3, "lung, side undetermined", (170, 150, 165)),
)
LESIONS: tuple[Label, ...] = (
    Label(1, "lesion", (214, 100, 60)),
    Label(2, "ground-glass", (255, 240, 80)),
    Label(3, "consolidation", (160, 40, 165)),
    Label(4, "pleural effusion", (110, 195, 245), inside_lungs=False),
)
OUTPUTS: tuple[str, ...] = ("lungs", *(label.name for label in LESIONS))
"""What a network that labels pixels can have an output for; any subset."""
CLASSES: tuple[str, ...] = ("COVID-19", "normal", "viral pneumonia", "bacterial pneumonia")
"""What a picture can be recognised as: exactly one of those that a network tells apart."""
OTHER = "not COVID-19"
"""What a picture is recognised as where a network only tells COVID-19 from all else."""
MANIFESTATIONS: tuple[str, ...] = tuple(label.name for label in LESIONS[1:])
"""Findings that a slice can have: none, or any."""
NAMES: dict[Task, tuple[str, ...]] = {
    "segmentation": OUTPUTS,
    "recognition": (*CLASSES, OTHER),
    "manifestations": MANIFESTATIONS,
}
"""What a network for a task can have an output for."""
UNION = "lesion"
UNITED: tuple[str, ...] = ("ground-glass", "consolidation")
"""A lesion is one of these; where a source or a model does not tell them apart, it is just that."""
GROUPS: dict[Group, tuple[Label, ...]] = {"lungs": LUNGS, "lesions": LESIONS}


def joins(outputs: tuple[str, ...]) -> bool:
    """Whether a model with these outputs says "lesion" by the union of those that it tells apart."""
    return UNION not in outputs and set(UNITED) <= set(outputs)


def painted_with(outputs: tuple[str, ...]) -> int:
    """Return the lesion value that a model with these outputs writes most, 0 if it writes none."""
    written = [name for name in (*UNITED, UNION, LESIONS[-1].name) if name in outputs]
    return lesion(written[0]).value if written else 0


def lesion(name: str) -> Label:
    """Return the lesion label called `name`.

    Raises
    ------
    KeyError
        If no lesion label has that name.
    """
    for label in LESIONS:
        if label.name == name:
            return label
    raise KeyError(name)
