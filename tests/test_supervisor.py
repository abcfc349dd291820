"""Restarts and signals: what crashed is started again, what only a person can mend is not, and a stop is a stop."""

import os
import signal
from collections.abc import Iterator

import pytest
import trio
from structlog.testing import capture_logs

from collector import supervisor
from collector.errors import UnusableDatabase, UnusableSpool
from collector.supervisor import restarting, stop_on_signal


@pytest.fixture(autouse=True)
def logs() -> Iterator[list]:
    """What was logged."""
    with capture_logs() as captured:
        yield captured


class Task:
    """Crashes by the errors that it was given, one a start, then returns."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.starts: list[float] = []

    async def run(self) -> None:
        self.starts.append(trio.current_time())
        await trio.sleep(1)
        if self.failures:
            raise self.failures.pop(0)


async def test_crash_is_logged_and_run_again(logs: list, autojump_clock: trio.testing.MockClock) -> None:
    """Prevents a crash from ending the collector, and from leaving no trace of why."""
    bug = ZeroDivisionError("a bug")
    group = ExceptionGroup("of a nursery", [ValueError("another")])
    task = Task(bug, group, MemoryError())
    await restarting("group", task.run)
    assert len(task.starts) == 4
    assert [log["event"] for log in logs] == ["crashed"] * 3
    assert all(log["task"] == "group" and log["log_level"] == "error" for log in logs)
    assert bug in logs[0]["exc_info"].exceptions
    assert logs[1]["exc_info"].exceptions == group.exceptions


async def test_restarts_are_ever_further_apart(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Prevents a task that crashes at once from being started without end, and one that ran long from waiting long."""
    monkeypatch.setattr(supervisor.random, "uniform", lambda _low, high: high)
    task = Task(*[ZeroDivisionError() for _ in range(10)])
    await restarting("group", task.run)
    delays = [later - earlier - 1 for earlier, later in zip(task.starts, task.starts[1:], strict=False)]
    assert delays == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30])


@pytest.mark.parametrize("error", [UnusableDatabase("x"), UnusableSpool("x")])
@pytest.mark.parametrize("is_alone", [True, False])
async def test_what_only_a_person_can_mend(
    error: Exception, is_alone: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Prevents a collector from trying for ever what can never succeed, instead of saying so."""
    task = Task(error if is_alone else ExceptionGroup("of a nursery", [ExceptionGroup("inner", [error])]))
    with pytest.RaisesGroup(pytest.RaisesExc(type(error)), flatten_subgroups=True):
        await restarting("group", task.run)
    assert len(task.starts) == 1


async def test_cancellation_is_no_crash(logs: list, autojump_clock: trio.testing.MockClock) -> None:
    """Prevents a stop from being mistaken for a crash, which would never end."""
    task = Task(ZeroDivisionError())
    with trio.move_on_after(0.5) as scope:
        await restarting("group", task.run)
    assert scope.cancelled_caught
    assert logs == []


@pytest.mark.parametrize("is_stopping", [True, False])
async def test_stop_ends_the_wait_for_a_restart(
    is_stopping: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Prevents a stop between crash and restart from passing before what was received is drained."""
    monkeypatch.setattr(supervisor.random, "uniform", lambda _low, _high: 20.0)
    stop = trio.Event()
    if is_stopping:
        stop.set()
    task = Task(ZeroDivisionError(), ZeroDivisionError())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(restarting, "group", task.run, stop)
        await trio.sleep(5)
        stop.set()
    first, second, third = task.starts
    # What crashes while it drains waits as usual, so that it does not spin.
    assert second - first == (21 if is_stopping else 5)
    assert third - second == 21


async def test_signals(logs: list) -> None:
    """Prevents a signal, or the same one sent again, from killing the process instead of stopping it."""
    stop = trio.Event()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_signal, stop, nursery.cancel_scope)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.cancel_scope.deadline == float("inf")
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(5):
            await stop.wait()
        deadline = nursery.cancel_scope.deadline
        assert deadline - trio.current_time() <= supervisor.DRAIN_TIMEOUT
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            await trio.sleep(0.05)
        assert nursery.cancel_scope.deadline == deadline, "a second signal gives no more time, and no less"
        nursery.cancel_scope.cancel()
    assert [(log["signal"], log["again"]) for log in logs] == [("SIGTERM", False), ("SIGTERM", True), ("SIGINT", True)]
    assert {number: signal.getsignal(number) for number in handlers} == handlers


async def test_drain_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a database that is away from holding up the exit until the host kills the process."""
    monkeypatch.setattr(supervisor, "DRAIN_TIMEOUT", 0.2)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, trio.Event(), nursery.cancel_scope)
            nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGINT)
    assert nursery.cancel_scope.cancelled_caught
