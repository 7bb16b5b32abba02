"""Jobs to compare a prediction with; they run in the same child, as jobs of the product do.

The child imports this module when it reads one of these requests, so this folder has to
be on its PYTHONPATH.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from napari_covseg.jobs.events import Event, Notice
from napari_covseg.jobs.run import JOBS
from napari_covseg.jobs.steps import Control


@dataclass(frozen=True)
class Forward:
    """The bare network on prepared slices of a case, nothing before or after it.

    The answer is a `Notice` with the seconds of a whole pass over `slices` with all cores, in
    batches of 1 or 4 on a CPU, whichever is faster, and as large as the product's on a GPU.
    """

    workspace: str
    case: str
    model: str
    slices: int


@dataclass(frozen=True)
class Prepare:
    """Everything before the network, in as many threads as the product uses; nothing of the network.

    The answers are two `Notice`: the seconds for `slices` as the model has them, and as the papers
    have them at most (the crop of Salehi 2022 at the 512 pixels of Elbana 2020).
    """

    workspace: str
    case: str
    model: str
    slices: int


@dataclass(frozen=True)
class Store:
    """Everything that a prediction reads from the store and writes to it, and nothing else."""

    workspace: str
    case: str
    slices: int


def forward(job: Forward, control: Control) -> Iterator[Event]:
    """Time the bare forward pass."""
    import numpy as np
    import torch

    from napari_covseg.cases.workspace import Workspace
    from napari_covseg.jobs.memory import loaded_model
    from napari_covseg.models.catalogue import find
    from napari_covseg.predict.slices import default_batch

    model = loaded_model(find(job.model).path, "auto")
    case = Workspace.open(job.workspace).case(job.case)
    images = np.stack([model.preparation(case.read_slice(z)) for z in range(job.slices)])
    tensors = torch.from_numpy(images).to(model.device).unsqueeze(1).float().div_(255.0)
    tensors = tensors.contiguous(memory_format=torch.channels_last)
    batches = {1, 4} if model.device.type == "cpu" else {default_batch(model.device)}

    def once(batch: int) -> None:
        for part in tensors.split(batch):
            model.network(part)
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    taken = []
    with torch.inference_mode():
        for batch in batches:
            model.network(tensors[:batch])
            # a single slice is over too quickly to be timed once
            taken.append(_seconds(partial(once, batch), 7 if job.slices == 1 else 1))
    yield Notice(str(min(taken)))


def prepare(job: Prepare, control: Control) -> Iterator[Event]:
    """Time the preparation of slices."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from napari_covseg.cases.workspace import Workspace
    from napari_covseg.jobs.memory import loaded_model
    from napari_covseg.models.catalogue import find
    from napari_covseg.models.preparation import Placement, Preparation
    from napari_covseg.predict.slices import THREADS

    own = loaded_model(find(job.model).path, "auto").preparation
    case = Workspace.open(job.workspace).case(job.case)
    voxels = [case.read_slice(z) for z in range(job.slices)]
    lungs = np.zeros(voxels[0].shape, np.uint8)
    lungs[80:400, 60:450] = 3

    def cropped(one: np.ndarray) -> Placement | None:
        return Preparation(size=512, crop="lungs").place(one.shape, lungs)

    with ThreadPoolExecutor(THREADS) as pool:
        for size, place in ((own.size, lambda one: own.place(one.shape)), (512, cropped)):
            preparation = Preparation(size, own.clip_hu, own.clahe_clip, own.clahe_tiles)

            def once(preparation: Preparation = preparation, place: Callable = place) -> None:
                list(pool.map(lambda one: preparation(one, "HU", place(one)), voxels))

            yield Notice(str(_seconds(once, 3)))


def store(job: Store, control: Control) -> Iterator[Event]:
    """Time what a prediction reads and writes."""
    from napari_covseg.cases.workspace import Workspace

    case = Workspace.open(job.workspace).case(job.case)
    latest = case.prediction(case.predictions()[-1].id)
    labels = [latest.read_slice(z) for z in range(job.slices)]
    copy = case.begin_prediction("benchmark", {}, latest.info.class_names, 0, probabilities=False)

    def once() -> None:
        for z, (lungs, lesions) in enumerate(labels):
            case.read_slice(z)
            copy.write_slice(z, lungs, lesions)
        for z in range(job.slices):  # the last pass in 3-D tells right from left
            lungs, lesions = copy.read_slice(z)
            copy.write_final("lungs", z, lungs)

    yield Notice(str(_seconds(once, 1)))


def _seconds(once: Callable[[], None], times: int) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        once()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


JOBS |= {
    Forward: (f"{__name__}:forward", "slices"),
    Prepare: (f"{__name__}:prepare", "slices"),
    Store: (f"{__name__}:store", "slices"),
}
