"""Which networks are loaded: kept between jobs, and off the GPU again when idle."""

from __future__ import annotations

import gc
import math
import os
import threading
import weakref
from pathlib import Path

import cv2
import torch

from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.find_model import FoundModel, find_model
from napari_covseg.models.catalogue import DEFAULT
from napari_covseg.models.file import Model, choose_device, load_model
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.options import PredictOptions
from napari_covseg.predict.slices import warm_up

_loaded: dict[tuple[str, int, str], Model] = {}
_warm: weakref.WeakSet[Model] = weakref.WeakSet()
_loading = threading.Lock()


def loaded_model(model: Path | FoundModel, device: str) -> Model:
    """Return a model on a device, from memory if its file is still the same.

    Parameters
    ----------
    model : Path or FoundModel
        A model file, or what `find_model` has found.
    device : str
        ``"auto"`` or a torch device.

    Raises
    ------
    ModelError
        If the file cannot be read as a model, or there is no such device.
    """
    where = str(choose_device(device))
    path = model if isinstance(model, Path) else model.path
    changed = path.stat().st_mtime_ns if path.exists() else 0
    key = (str(path.absolute()), changed, where)
    with _loading:
        torch.set_num_threads(core_count())
        cv2.setNumThreads(1)  # what it does is too short to share, and torch has all cores
        if key not in _loaded:
            source = model if isinstance(model, Path) else model.source()
            _loaded[key] = load_model(source, where, str(path))
        return _loaded[key]


def warm_model(model: Path | FoundModel, device: str) -> None:
    """Load a model and try it, once: what it has taken then serves every prediction; as `loaded_model`."""
    loaded = loaded_model(model, device)
    if loaded not in _warm:
        warm_up(loaded)
        _warm.add(loaded)


def loaded_ensemble(
    name: str, options: PredictOptions, device: str, workspace: Workspace | None = None
) -> Ensemble:
    """Return a model with all that the options name beside it.

    Parameters
    ----------
    name : str
        As in `find_model`, as are the names in the options.
    options : PredictOptions
    device : str
    workspace : Workspace, optional

    Raises
    ------
    ModelError
        If a model cannot be used, or they do not go together.
    """
    names = (name, *options.also)
    models = tuple(loaded_model(find_model(each, workspace), device) for each in names)
    crops = any(model.preparation.crop != "none" for model in models)
    finder = options.lungs_from or (DEFAULT if crops else None)
    lungs_from = None
    if finder is not None and (crops or "lungs" not in models[0].card.outputs):
        lungs_from = loaded_model(find_model(finder, workspace), device)
    return Ensemble(models, options.tta, lungs_from, options.uncertainty)


def free_gpu() -> None:
    """Forget the models that are on a GPU and give its memory back; none may be in use."""
    with _loading:
        for key in [key for key in _loaded if key[2] != "cpu"]:
            del _loaded[key]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def core_count() -> int:
    """Return how many cores this process may use: what OMP_NUM_THREADS says, or all that it is given."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    if text.isdigit() and int(text) > 0:
        return int(text)
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        limit = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no control group, or no limit ("max")
        return count
    return max(1, min(count, limit))
