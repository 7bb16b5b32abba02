from __future__ import annotations

from pathlib import Path

import pytest
from tiny_jobs import Count, Fail, Wait

from napari_covseg.jobs.child import Scheduler
from napari_covseg.jobs.events import Cancelled, Event, Failed, Finished, Progress, SlicesDone, Started


@pytest.fixture
def sent() -> list[tuple[int, Event]]:
    return []


@pytest.fixture
def scheduler(sent: list[tuple[int, Event]]) -> Scheduler:
    return Scheduler(lambda job_id, event: sent.append((job_id, event)))


def finish(scheduler: Scheduler) -> None:
    while scheduler.turn(0):
        pass


def turns(sent: list[tuple[int, Event]]) -> list[int]:
    return [job_id for job_id, event in sent if isinstance(event, SlicesDone)]


def test_events_come_in_order(scheduler, sent, tmp_path: Path) -> None:
    scheduler.submit(7, Count(str(tmp_path / "count"), 3, first=1))
    finish(scheduler)
    assert sent == [
        (7, Started(7)),
        (7, SlicesDone("count", (1,))),
        (7, SlicesDone("count", (0,))),
        (7, SlicesDone("count", (2,))),
        (7, Finished()),
    ]
    assert not scheduler.busy


def test_equal_priorities_alternate(scheduler, sent, tmp_path: Path) -> None:
    for job_id in (1, 2):
        scheduler.submit(job_id, Count(str(tmp_path / str(job_id)), 3))
    finish(scheduler)
    assert turns(sent) == [1, 2, 1, 2, 1, 2]


def test_higher_priority_goes_first_and_lower_goes_on(scheduler, sent, tmp_path: Path) -> None:
    scheduler.submit(1, Count(str(tmp_path / "1"), 4))
    scheduler.turn(0)
    scheduler.submit(2, Count(str(tmp_path / "2"), 3), priority=5)
    finish(scheduler)
    assert turns(sent) == [1, 2, 2, 2, 1, 1, 1]


def test_cancel_of_a_waiting_job_needs_no_turn(scheduler, sent, tmp_path: Path) -> None:
    scheduler.submit(1, Count(str(tmp_path / "count"), 3))
    scheduler.cancel(1)
    assert sent == [(1, Cancelled())]
    assert not scheduler.turn(0)
    assert not (tmp_path / "count").exists()


def test_cancel_closes_the_job_and_keeps_its_slices(scheduler, sent, tmp_path: Path) -> None:
    scheduler.submit(1, Count(str(tmp_path / "count"), 10))
    scheduler.turn(0)
    scheduler.turn(0)
    scheduler.cancel(1)
    finish(scheduler)
    assert sent[-1] == (1, Cancelled())
    assert turns(sent) == [1, 1]
    assert (tmp_path / "count").read_text() == "0\n1\nend\n"  # its `finally` has run


def test_cancel_goes_before_higher_priorities(scheduler, sent, tmp_path: Path) -> None:
    scheduler.submit(1, Count(str(tmp_path / "1"), 10))
    scheduler.turn(0)
    scheduler.submit(2, Count(str(tmp_path / "2"), 10), priority=9)
    scheduler.cancel(1)
    scheduler.turn(0)
    assert sent[-1] == (1, Cancelled())


def test_cancel_and_focus_of_an_unknown_job_do_nothing(scheduler, sent) -> None:
    scheduler.cancel(99)
    scheduler.focus(99, 3)
    assert sent == []


@pytest.mark.parametrize("before", [True, False], ids=["before it begins", "while it runs"])
def test_focus_reorders(scheduler, sent, tmp_path: Path, before: bool) -> None:
    scheduler.submit(1, Count(str(tmp_path / "count"), 10))
    if not before:
        scheduler.turn(0)
    scheduler.focus(1, 8)
    scheduler.turn(0)
    assert sent[-1] == (1, SlicesDone("count", (8,)))


def test_a_users_error_is_passed_on_as_it_is(scheduler, sent) -> None:
    scheduler.submit(1, Fail("user"))
    finish(scheduler)
    assert sent[-1] == (1, Failed("The case is not there; import it first.", user_error=True))


def test_a_fault_becomes_one_line_and_a_file(scheduler, sent, tmp_path: Path, capsys) -> None:
    scheduler.submit(1, Fail("fault"))
    finish(scheduler)
    failed = sent[-1][1]
    assert isinstance(failed, Failed) and not failed.user_error
    assert "ZeroDivisionError: one" in failed.message and "\n" not in failed.message
    (fault,) = (tmp_path / "state").rglob("fault-*.txt")
    assert str(fault) in failed.message
    assert "Fail(how='fault')" in fault.read_text() and "Traceback" in fault.read_text()
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_request_fails_with_a_sentence(scheduler, sent) -> None:
    scheduler.submit(1, object())
    finish(scheduler)
    assert sent[-1][1].user_error and "object" in sent[-1][1].message


def test_a_waiting_job_lets_others_work_and_repeats_nothing(scheduler, sent, tmp_path: Path) -> None:
    scheduler.submit(1, Wait(0.3))
    scheduler.submit(2, Count(str(tmp_path / "count"), 3))
    finish(scheduler)
    mine = [event for job_id, event in sent if job_id == 1]
    assert mine == [Started(1), Progress(0, 0, "naps"), Finished()]
    assert sent.index((2, Finished())) < sent.index((1, Finished()))


def test_close_cancels_everything(scheduler, sent, tmp_path: Path) -> None:
    for job_id in (1, 2, 3):
        scheduler.submit(job_id, Count(str(tmp_path / str(job_id)), 5))
    scheduler.turn(0)
    scheduler.close()
    assert {job_id for job_id, event in sent if isinstance(event, Cancelled)} == {1, 2, 3}
    assert not scheduler.busy
    assert (tmp_path / "1").read_text().endswith("end\n")
