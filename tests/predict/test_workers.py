"""Workers share the cores among them and leave everything else its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from napari_covseg.models.file import Model
from napari_covseg.predict.slices import Workers, default_batch, warm_up


@pytest.fixture
def eight_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "shares"), [(8, [2, 2, 2, 2]), (6, [1, 1, 2, 2])])
@pytest.mark.usefixtures("eight_cores")
def test_on_a_cpu_the_workers_share_the_cores(cores: int, shares: list[int]) -> None:
    torch.set_num_threads(cores)
    with Workers(torch.device("cpu")) as workers:
        assert workers.count == 4
        met = threading.Barrier(workers.count)

        def threads() -> int:
            met.wait(10)  # each in a lane of its own
            return torch.get_num_threads()

        asked = [workers.submit(threads) for _ in range(workers.count)]
        assert sorted(answer.result(10) for answer in asked) == shares
        assert workers.submit_first(torch.get_num_threads).result(10) == cores


@pytest.mark.usefixtures("eight_cores")
def test_other_threads_keep_all_cores() -> None:
    seen: list[int] = []
    with Workers(torch.device("cpu")):
        assert torch.get_num_threads() == 8
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
    assert seen == [8]


@pytest.mark.parametrize("threads", [1, 2])
def test_there_are_no_more_workers_than_cores(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with Workers(torch.device("cpu")) as workers:
            assert workers.count == threads
            assert workers.submit(torch.get_num_threads).result(10) == 1
    finally:
        torch.set_num_threads(before)


def test_on_a_gpu_one_network_works_at_a_time() -> None:
    with Workers(torch.device("cuda")) as workers:
        here, most = 0, 0

        def work() -> None:
            nonlocal here, most
            with workers.turn():
                here += 1
                most = max(most, here)
                threading.Event().wait(0.02)
                here -= 1

        for done in [workers.submit(work) for _ in range(6)]:
            done.result(10)
        assert (workers.count, most) == (2, 1)
        assert list(workers.share(abs, [-1, -2])) == [1, 2]


def test_leaving_does_not_wait_for_what_is_under_way() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return go_on.wait(30)

    with Workers(torch.device("cpu")) as workers:
        under_way = workers.submit(work)
        waiting = [workers.submit(lambda: None) for _ in range(20)]
        assert begun.wait(10)
    assert not under_way.done()
    go_on.set()
    assert under_way.result(10)
    assert waiting[-1].cancelled() or waiting[-1].done()


def test_a_model_warms_up_on_as_many_slices_as_it_will_get(make_model: Callable[..., Model]) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def see(slices: Tensor) -> Tensor:
        seen.append((slices.device.type, tuple(slices.shape)))
        return slices

    model = make_model(48, lesion=see)
    warm_up(model)
    assert set(seen) == {("cpu", (1, 1, 48, 48))} and len(seen) >= 2
    seen.clear()
    warm_up(replace(model, device=torch.device("meta")))
    assert set(seen) == {("meta", (4, 1, 48, 48))}
    assert [default_batch(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [1, 32, 4]


def test_a_model_that_cannot_run_says_so_before_the_first_slice(make_model: Callable[..., Model]) -> None:
    def fails(message: str) -> Callable[[Tensor], Tensor]:
        def fail(slices: Tensor) -> Tensor:
            raise RuntimeError(message)

        return fail

    warm_up(make_model(lesion=fails("CUDA out of memory")))  # with real slices the batch is halved
    with pytest.raises(RuntimeError, match="of another shape"):
        warm_up(make_model(lesion=fails("weights of another shape")))
