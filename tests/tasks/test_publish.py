"""The publisher against a real Redis: messages are the rows, and whatever Redis does costs its subscribers alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import redis
import trio
from collecting import collecting, open_kraken, open_market, settings_for, wait_until
from embedded import EmbeddedRedis, redis_server
from hypothesis import given
from hypothesis import strategies as st
from samples import TIME, book_row, run, trade
from stored import entries, read_digits, stored_books, stored_trades
from structlog.testing import capture_logs

from collector.statistics import Statistics
from collector.tasks import publish
from collector.tasks.publish import BOOK_CHANNEL, TRADES_CHANNEL, PublishQueue, book_json, trade_json

DIGITS = st.from_regex(r"(0|[1-9][0-9]{0,20})(\.[0-9]{1,18})?", fullmatch=True)


class Subscriber:
    """Everything that was published since it subscribed, by channel, with numbers as they were written."""

    def __init__(self, pubsub: redis.client.PubSub) -> None:
        self._pubsub = pubsub
        self.books: list[dict] = []
        self.trades: list[dict] = []

    def read(self) -> None:
        while (message := self._pubsub.get_message(ignore_subscribe_messages=True)) is not None:
            messages = self.books if message["channel"] == BOOK_CHANNEL.encode() else self.trades
            messages.append(read_digits(message["data"]))


@contextmanager
def subscribed(server: EmbeddedRedis) -> Iterator[Subscriber]:
    """A subscriber of both channels, that has the server's word for it."""
    with redis.Redis(port=server.port) as client, client.pubsub() as pubsub:
        pubsub.subscribe(BOOK_CHANNEL, TRADES_CHANNEL)
        for _ in range(2):
            assert pubsub.get_message(timeout=5)["type"] == "subscribe"
        yield Subscriber(pubsub)


async def test_messages_are_the_rows(migrated_url: str, redis_service: EmbeddedRedis, tmp_path: Path) -> None:
    """Prevents a subscriber from seeing other digits than the database, a trade twice, or rows Kraken did not send."""
    with subscribed(redis_service) as subscriber:
        async with open_market(rate=1500) as market, open_kraken(market) as kraken:
            settings = settings_for(
                kraken, migrated_url, tmp_path, use_redis=True, redis_port=redis_service.port, snapshot_interval=1
            )
            async with collecting(settings) as collector:
                for connections in (1, 2, 3):
                    await wait_until(lambda number=connections: collector.statistics.connections >= number)
                    stored = collector.statistics.stored_rows
                    await wait_until(lambda stored=stored: collector.statistics.stored_rows > stored + 400)
                    if connections < 3:
                        kraken.faults.close()
                    subscriber.read()
                collector.stop.set()
                await wait_until(lambda: collector.spool.waiting_rows == 0)
        assert collector.statistics.unpublished == 0
        chains = stored_books(migrated_url)
        trades = stored_trades(migrated_url)
        sent = sum(len(entries(rows)) for rows in chains.values())
        published = collector.statistics.published
        subscriber.read()
    assert len(subscriber.books) + len(subscriber.trades) == published
    assert any(row.is_checkpoint for rows in chains.values() for row in rows)
    # A stop does not wait for Redis: the very last messages may be missing.
    assert sent - len(subscriber.books) < 100
    assert len(trades) - len(subscriber.trades) < 100
    rows = {(str(row.chain), str(row.seq)): row for rows in chains.values() for row in rows}
    assert len({(book["chain"], book["seq"]) for book in subscriber.books}) == len(subscriber.books)
    for book in subscriber.books:
        row = rows[book["chain"], book["seq"]]
        assert not row.is_checkpoint
        entry = row.entry
        assert (book["event_time"], book["pair"], book["type"]) == (entry.event_time, entry.pair, entry.type)
        assert (book["bids"], book["asks"]) == (read_digits(entry.bids), read_digits(entry.asks))
        assert book["checksum"] == str(entry.checksum)
        assert book["evicted"] == (None if row.evicted is None else read_digits(row.evicted))
    known = {trade.trade_id: trade for trade in trades}
    ids = [int(message["trade_id"]) for message in subscriber.trades]
    assert len(set(ids)) == len(ids)
    for message in subscriber.trades:
        expected = known[int(message["trade_id"])]._asdict() | {"trade_id": message["trade_id"]}
        assert message == expected


async def test_redis_that_comes_and_goes(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a Redis that is absent or restarted from costing the database a row, or its losses from being hidden."""
    monkeypatch.setattr(publish, "RETRY_AFTER", 0.1)
    with redis_server() as server, capture_logs() as logs:
        server.stop()
        async with open_market() as market, open_kraken(market) as kraken:
            settings = settings_for(kraken, migrated_url, tmp_path, use_redis=True, redis_port=server.port)
            async with collecting(settings) as collector:
                statistics = collector.statistics
                for _ in range(2):
                    missed = statistics.unpublished
                    await wait_until(lambda missed=missed: statistics.unpublished > missed + 50)
                    await trio.to_thread.run_sync(server.start)
                    reached = statistics.published
                    await wait_until(lambda reached=reached: statistics.published > reached + 50)
                    await trio.to_thread.run_sync(server.stop)
                missed = statistics.unpublished
                await wait_until(lambda missed=missed: statistics.unpublished > missed)
                collector.stop.set()
                await wait_until(lambda: collector.spool.waiting_rows == 0)
    (rows,) = stored_books(migrated_url).values()
    total = len(entries(rows)) + len(stored_trades(migrated_url))
    assert statistics.stored_rows >= total
    assert total - 1000 < statistics.published + statistics.unpublished <= total
    events = [log["event"] for log in logs if log["event"].startswith("redis_")]
    assert events[:4] == ["redis_unavailable", "redis_available"] * 2, "each change is told once"
    assert "crashed" not in {log["event"] for log in logs}


async def test_queue_without_a_reader() -> None:
    """Prevents a publisher that does not keep up from holding up the book task, or from filling the memory."""
    statistics = Statistics()
    queue = PublishQueue(statistics)
    for number in range(0, publish.QUEUE_ROWS + 20, 2):
        queue.offer([book_row(number), trade(number), run(1)])
    assert statistics.unpublished == 20
    assert len((await queue.take())[1]) == publish.QUEUE_ROWS


async def test_everything_that_waits_is_taken_at_once() -> None:
    """Prevents a subscriber from falling behind since each batch, even one without rows, costs a round trip."""
    queue = PublishQueue(Statistics())
    for number in range(100):
        queue.offer([book_row(number)])
        queue.offer([run(1)])
    assert (await queue.take())[1] == [book_row(number) for number in range(100)]
    with trio.move_on_after(0) as waiting:
        await queue.take()
    assert waiting.cancelled_caught
    queue.offer([book_row(100)])
    assert (await queue.take())[1] == [book_row(100)]


@pytest.mark.parametrize("pair", ["BTC/USD", "ETH/USD"])
def test_trade_is_published_once(pair: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents what each reconnect repeats from being published again, and the memory of it from growing for ever."""
    monkeypatch.setattr(publish, "REMEMBERED_TRADES", 100)
    queue = PublishQueue(Statistics())
    for start in range(0, 500, 50):
        messages = queue.messages(trade(number, pair=pair) for number in range(start, start + 100))
        assert len(messages) == (100 if start == 0 else 50)
    assert len(queue.messages([trade(520, pair="SOL/USD"), trade(520, pair=pair)])) == 1
    assert all(len(known) <= 100 and len(order) <= 100 for known, order in queue._published.values())


def test_checkpoints_and_coverage_are_not_published() -> None:
    """Prevents a subscriber from taking a checkpoint, which says nothing new, for a new beginning."""
    checkpoint = book_row(7, type="snapshot")
    messages = PublishQueue(Statistics()).messages([book_row(0), checkpoint, book_row(8), run(8)])
    assert [(channel, msgspec.json.decode(message)["seq"]) for channel, message in messages] == [
        (BOOK_CHANNEL, 0),
        (BOOK_CHANNEL, 8),
    ]


@given(DIGITS, DIGITS, st.text())
def test_json_keeps_every_digit(price: str, size: str, word: str) -> None:
    """Prevents JSON from rounding a number, or a word of Kraken's from breaking it."""
    levels = f"[[{price},{size}]]".encode()
    row = book_row(1, bids=levels, evicted=b'{"bids":[],"asks":[%b]}' % price.encode())
    message = read_digits(book_json(row))
    assert list(message) == ["event_time", "pair", "bids", "asks", "type", "checksum", "chain", "seq", "evicted"]
    assert message["bids"] == [[price, size]]
    assert message["evicted"] == {"bids": [], "asks": [price]}
    message = read_digits(trade_json(trade(5, price=price.encode(), volume=size.encode(), order_type=word)))
    assert message == {
        "event_time": TIME,
        "pair": "BTC/USD",
        "price": price,
        "volume": size,
        "side": "buy",
        "order_type": word,
        "trade_id": "5",
    }
