"""A client that nobody here wrote, python-kraken-sdk, against the server: over a simulated and over a stored market."""

import json
import sys
from pathlib import Path

import trio
from collecting import DEADLINE, Kraken, clean_environment, open_kraken, open_market
from replaying import Tape, open_replay

from collector.kraken.times import read_time
from collector.storage.database import connect
from collector.storage.history import book_at
from tests.kraken.client import connected
from tests.kraken.naive_book import NaiveBook

SCRIPT = Path(__file__).parent.parent / "sdk_client.py"
PAIR, DEPTH = "BTC/USD", 10  # what a bot subscribes that does not say otherwise
BOOK = '{"channel":"book"'


async def run_bot(kraken: Kraken, messages: int) -> dict:
    """What the bot reports after some book messages. It backs off for a second or more before each connection."""
    arguments = [kraken.address.ws_url, kraken.address.rest_url, PAIR, str(DEPTH), str(messages)]
    with trio.fail_after(2 * DEADLINE):
        done = await trio.run_process(
            [sys.executable, str(SCRIPT), *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=clean_environment(),
        )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def book_frames(kraken: Kraken) -> list[bytes]:
    """The book messages that were sent."""
    return [frame for frame in kraken.frames() if frame.decode().startswith(BOOK)]


def assert_kept(report: dict, frames: list[bytes]) -> None:
    """The bot's book is the one that some frames make, and no checksum failed on the way."""
    book = NaiveBook(DEPTH)
    assert all(book.apply(frame) for frame in frames)
    assert report["errors"] == []
    assert report["messages"] == len(frames)
    for side, ours in (("bid", "bids"), ("ask", "asks")):
        assert [tuple(level) for level in report[side]] == book.best(ours)


async def test_it_keeps_the_book_of_the_simulator() -> None:
    """Prevents a simulator that only our own client takes for Kraken."""
    async with open_market(rate=200) as source, open_kraken(source) as kraken:
        report = await run_bot(kraken, messages=200)
        assert_kept(report, book_frames(kraken)[:200])


async def test_it_keeps_the_book_of_a_replay_through_a_hole(tape: Tape) -> None:
    """Prevents a bot built for Kraken from needing a change to run on what is stored, at a lower depth, past a hole."""
    expected: list[str] = []
    async with open_replay(tape.url, loop=True) as source, open_kraken(source) as kraken:
        for _ in range(2):  # up to the hole, and from there to the end, where a loop closes
            async with connected(kraken.address) as client:
                await client.subscribe("book", PAIR, depth=DEPTH)
                with trio.fail_after(DEADLINE):
                    await client.closed()
                expected += client.data()
    async with open_replay(tape.url) as source, open_kraken(source) as kraken:
        report = await run_bot(kraken, messages=len(expected))
    assert len(kraken.sent) == report["snapshots"] == 2
    assert_kept(report, [frame.encode() for frame in expected])
    at = read_time(json.loads(expected[-1])["data"][0]["timestamp"])
    with connect(tape.url, application_name="tests") as connection:
        stored = book_at(connection, PAIR, at, DEPTH)
    assert [tuple(level) for level in report["bid"]] == [(f"{price:f}", f"{size:f}") for price, size in stored.bids]
    assert [tuple(level) for level in report["ask"]] == [(f"{price:f}", f"{size:f}") for price, size in stored.asks]
