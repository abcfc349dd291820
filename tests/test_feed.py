"""The books that need a new snapshot, on their way from the book task to the socket task."""

import trio
from trio.testing import wait_all_tasks_blocked

from collector.feed import ResyncRequests

PATIENT = 20  # seconds after which a test fails, whatever else the machine does


async def next_pairs(resyncs: ResyncRequests, connection: int, count: int) -> set[str]:
    with trio.fail_after(PATIENT):
        return {await resyncs.next_pair(connection) for _ in range(count)}


async def test_each_pair_is_given_once() -> None:
    """Prevents a pair from being forgotten, and one that was asked for twice from being resynced twice."""
    resyncs = ResyncRequests()
    for pair in ("BTC/USD", "ETH/EUR", "BTC/USD"):
        resyncs.add(1, pair)
    assert await next_pairs(resyncs, 1, 2) == {"BTC/USD", "ETH/EUR"}
    with trio.move_on_after(0.05) as scope:
        await resyncs.next_pair(1)
    assert scope.cancelled_caught


async def test_what_an_earlier_connection_asked_for_is_dropped() -> None:
    """Prevents a resync of a book that the new connection has just begun."""
    resyncs = ResyncRequests()
    resyncs.add(1, "BTC/USD")
    resyncs.add(2, "ETH/EUR")
    resyncs.add(1, "ADA/USD")
    assert await next_pairs(resyncs, 2, 1) == {"ETH/EUR"}
    resyncs.add(2, "ADA/USD")
    assert await next_pairs(resyncs, 2, 1) == {"ADA/USD"}


async def test_waiting_ends_at_the_next_one(nursery: trio.Nursery) -> None:
    """Prevents a request that arrives while the socket task waits from waiting for another."""
    resyncs = ResyncRequests()
    given: list[str] = []

    async def serve() -> None:
        while True:
            given.append(await resyncs.next_pair(3))

    nursery.start_soon(serve)
    await wait_all_tasks_blocked()
    resyncs.add(2, "OLD/USD")
    await wait_all_tasks_blocked()
    assert given == []
    for pair in ("BTC/USD", "ETH/EUR", "BTC/USD"):
        resyncs.add(3, pair)
        await wait_all_tasks_blocked()
    assert given == ["BTC/USD", "ETH/EUR", "BTC/USD"]


async def test_waiting_can_be_cancelled_and_loses_nothing() -> None:
    """Prevents a connection that ends from taking the next one's requests with it."""
    resyncs = ResyncRequests()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(resyncs.next_pair, 1)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    resyncs.add(2, "BTC/USD")
    assert await next_pairs(resyncs, 2, 1) == {"BTC/USD"}
