"""Label COVID-19 lesions on chest CT in napari: predict, correct, learn.

From Python::

    import napari_covseg

    labels = napari_covseg.segment("scan.nii.gz")
    labels.write("lesions.nii.gz")

Research use, not for diagnosis.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_covseg.interface import (
        ModelCard,
        PredictOptions,
        Scan,
        Segmentation,
        Workspace,
        finetune,
        read_scan,
        segment,
        train,
    )

__all__ = [
    "ModelCard",
    "PredictOptions",
    "Scan",
    "Segmentation",
    "Workspace",
    "finetune",
    "read_scan",
    "segment",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-covseg")
    # torch takes seconds to load, and the viewer's process never loads it: not before a name is used
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from napari_covseg import interface

    return getattr(interface, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
