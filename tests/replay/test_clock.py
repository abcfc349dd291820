"""The clock of a replay: one order of events for all streams, at any speed."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from collector.kraken.server.source import NANOSECONDS
from collector.replay.clock import SETTLE_TIME, MarketClock

SECOND = NANOSECONDS
START, END = 1000 * SECOND, 2000 * SECOND


@asynccontextmanager
async def running(speed: float | None) -> AsyncIterator[tuple[MarketClock, trio.Nursery]]:
    """A clock, and a nursery for the streams."""
    clock = MarketClock(START, END, speed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        async with trio.open_nursery() as streams:
            yield clock, streams
        nursery.cancel_scope.cancel()


async def play(clock: MarketClock, times: Sequence[int], given: list[int]) -> None:
    """A stream that gives all that is due, and takes its time over it."""
    with clock.stream():
        done = 0
        while done < len(times):
            horizon = await clock.reach(times[done])
            assert horizon >= times[done]
            await trio.sleep(random.choice([0, 0.01]))
            while done < len(times) and times[done] <= horizon:
                given.append(times[done])
                done += 1


def some_times(seed: int, count: int = 200) -> list[int]:
    """Times of a stream within three seconds."""
    chance = random.Random(seed)
    return sorted(START + chance.randrange(3 * SECOND) for _ in range(count))


@pytest.mark.parametrize("speed", [None, 1.0, 10.0])
async def test_streams_go_on_in_the_order_of_the_market(speed: float | None, autojump_clock) -> None:
    """Prevents a slow stream from coming behind what happened after it."""
    given: list[int] = []
    streams = [some_times(seed) for seed in range(3)]
    async with running(speed) as (clock, nursery):
        for times in streams:
            nursery.start_soon(play, clock, times, given)
    assert given == sorted(given)
    assert given == sorted(time for times in streams for time in times)


@pytest.mark.parametrize(("speed", "takes"), [(1.0, 3.0), (10.0, 0.3), (None, 0.0)])
async def test_time_passes_at_the_speed_that_was_asked_for(
    speed: float | None, takes: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Prevents a pace of its own."""
    async with running(speed) as (clock, _):
        with clock.stream():
            began = trio.current_time()
            await clock.reach(START + 3 * SECOND)
            assert trio.current_time() - began == pytest.approx(SETTLE_TIME + takes)
            assert clock.now() == START + 3 * SECOND


async def test_the_market_stands_still_until_all_is_subscribed(autojump_clock) -> None:
    """Prevents a client that subscribes step by step from missing the beginning of what it subscribes last."""
    places = []
    async with running(None) as (clock, nursery):
        for _ in range(5):
            nursery.start_soon(play, clock, [START + SECOND], [])
            await trio.sleep(0.8 * SETTLE_TIME)
            places.append(clock.now())
    assert places == [START] * 5


async def test_time_goes_on_while_nothing_happens(autojump_clock) -> None:
    """Prevents what is subscribed in a quiet time from beginning with what was long ago."""
    async with running(1.0) as (clock, nursery):
        nursery.start_soon(play, clock, [START + 10 * SECOND], [])
        await trio.sleep(SETTLE_TIME + 4)
        assert clock.now() == START + 4 * SECOND
        with clock.stream():
            assert await clock.reach(START + 4 * SECOND) == START + 4 * SECOND


async def test_a_stream_that_is_given_up_holds_nobody_up(autojump_clock) -> None:
    """Prevents an unsubscribe from stopping the market for what is left."""
    given: list[int] = []
    async with running(None) as (clock, nursery):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as abandoned:
                abandoned.start_soon(play, clock, [START + SECOND], [])
                nursery.start_soon(play, clock, [START + 2 * SECOND], given)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
    assert given == [START + 2 * SECOND]
