"""The pace at which REST is asked, and what happens when it refuses; against the project's own server."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import httpx2
import pytest
import structlog
import trio
from collecting import Kraken, open_kraken

from collector.errors import RestError, UnknownPair
from collector.kraken.rest import Precision
from collector.kraken.simulator.simulation import SimulatedSource, Simulation
from collector.tasks import paced_rest
from collector.tasks.paced_rest import PacedRest

PAIR = "BTC/USD"
SPACING = 0.1


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced_rest, "REQUEST_SPACING", SPACING)
    monkeypatch.setattr(paced_rest, "BACKOFF_BASE", 0.4)
    monkeypatch.setattr(paced_rest, "BACKOFF_CAP", 0.4)


@asynccontextmanager
async def open_rest(*, gives_up: bool = False) -> AsyncIterator[tuple[PacedRest, Kraken, list[float]]]:
    """A paced client, its server, and the times at which it asks."""
    times: list[float] = []

    async def note(_: httpx2.Request) -> None:
        times.append(trio.current_time())

    source = SimulatedSource(Simulation([PAIR, "ETH/USD"], seed=1, start=time.time_ns(), depths=[10]))
    async with (
        open_kraken(source) as kraken,
        httpx2.AsyncClient(base_url=kraken.address.rest_url, event_hooks={"request": [note]}) as client,
    ):
        yield PacedRest(client, gives_up=gives_up), kraken, times


def gaps(times: list[float]) -> list[float]:
    return [high - low for low, high in pairwise(times)]


async def test_all_pairs_share_one_pace() -> None:
    """Prevents more requests a second than Kraken allows, however many pairs have something missing."""
    async with open_rest() as (rest, kraken, times):
        kraken.faults.limit_rest(SPACING / 2)
        for pair in (PAIR, "ETH/USD", PAIR, "ETH/USD"):
            assert len((await rest.trades(pair, 0)).trades) == 1000
    assert all(gap >= SPACING / 2 for gap in gaps(times)), "half of it, since connecting may hold up the first"


async def test_decimals_are_asked_for_once() -> None:
    """Prevents a second request with every page."""
    async with open_rest() as (rest, _, times):
        assert [await rest.precision(PAIR) for _ in range(3)] == [Precision(1, 8)] * 3
    assert len(times) == 1


@pytest.mark.parametrize(
    "fail",
    [
        lambda faults: faults.rest_error("EGeneral:Too many requests", times=1),
        lambda faults: faults.rest_error("EAPI:Rate limit exceeded", times=1),
        lambda faults: faults.rest_error("EService:Busy", times=1),
        lambda faults: faults.rest_status(429, times=1),
        lambda faults: faults.rest_status(520, times=1),
    ],
)
async def test_a_refusal_is_followed_by_a_pause(fail: Callable[[object], None]) -> None:
    """Prevents requests against a limit, which make Kraken's lock-out longer."""
    async with open_rest() as (rest, kraken, times):
        fail(kraken.faults)
        with pytest.raises(RestError):
            await rest.trades(PAIR, 0)
        assert (await rest.trades(PAIR, 0)).trades
        assert not rest.refuses(PAIR)
    assert gaps(times)[0] >= 0.2


async def test_the_time_that_kraken_says_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents requests before Kraken wants to hear any, and a wait of years by a clock that is wrong."""
    async with open_rest() as (rest, kraken, times):
        now = int(time.time())
        kraken.faults.rest_error(f"EService:Throttled: {now + 2}", times=1)
        with pytest.raises(RestError):
            await rest.trades(PAIR, 0)
        await rest.trades(PAIR, 0)
        assert time.time() >= now + 2
        monkeypatch.setattr(paced_rest, "LONGEST_THROTTLE", 0.5)
        kraken.faults.rest_error(f"EService:Throttled: {now + 10**9}", times=1)
        with pytest.raises(RestError):
            await rest.trades(PAIR, 0)
        with trio.fail_after(20):
            await rest.trades(PAIR, 0)
    assert gaps(times)[2] >= 0.5


async def test_unknown_pair_is_told_once_and_holds_up_no_other() -> None:
    """Prevents a pair that REST does not have from taking the requests of the others, or from filling the log."""
    async with open_rest() as (rest, _, times):
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(UnknownPair):
                    await rest.trades("NOT/THERE", 0)
            assert rest.refuses("NOT/THERE")
            assert not rest.refuses(PAIR)
            assert (await rest.trades(PAIR, 0)).trades
    assert [entry["event"] for entry in logs] == ["pair_unknown_to_rest"]
    assert len(times) == 3


async def test_an_outage_is_told_once_and_its_end_too() -> None:
    """Prevents a log that is full of one outage, or that never says that it is over."""
    async with open_rest() as (rest, kraken, _):
        kraken.faults.rest_error("EService:Unavailable", times=2)
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(RestError):
                    await rest.trades(PAIR, 0)
            await rest.trades(PAIR, 0)
    assert [entry["event"] for entry in logs] == ["rest_unavailable", "rest_available"]


@pytest.mark.parametrize(
    "fail",
    [
        lambda faults, times: faults.rest_error("EGeneral:Too many requests", times=times),
        lambda faults, times: faults.rest_error("EAPI:Rate limit exceeded", times=times),
        lambda faults, times: faults.rest_error(f"EService:Throttled: {int(time.time())}", times=times),
        lambda faults, times: faults.rest_status(429, times=times),
    ],
)
async def test_who_gives_up_waits_for_some_limits(
    fail: Callable[[object, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a limit, which passes, from ending a repair, and one that does not from holding up a person for ever."""
    monkeypatch.setattr(paced_rest, "BACKOFF_BASE", 0.1)
    monkeypatch.setattr(paced_rest, "BACKOFF_CAP", 0.1)
    async with open_rest(gives_up=True) as (rest, kraken, times):
        for _ in range(2):  # limits in a row are what counts: between them all is well
            fail(kraken.faults, paced_rest.LIMITS_IN_A_ROW)
            assert (await rest.trades(PAIR, 0)).trades
        before = len(times)
        fail(kraken.faults, paced_rest.LIMITS_IN_A_ROW + 1)
        with pytest.raises(RestError):
            await rest.trades(PAIR, 0)
        assert len(times) == before + paced_rest.LIMITS_IN_A_ROW + 1


async def test_who_gives_up_does_so_at_once() -> None:
    """Prevents a request against a REST that is away, and a line in the log that promises another."""
    async with open_rest(gives_up=True) as (rest, kraken, times):
        kraken.faults.rest_error("EService:Unavailable", times=1)
        with structlog.testing.capture_logs() as logs, pytest.raises(RestError):
            await rest.trades(PAIR, 0)
    assert len(times) == 1
    assert logs == []
