"""The publisher: rows to Redis pub/sub as soon as they are verified.

Lossy by design, so that it is never in anybody's way: what it has no room for, and what Redis does not take, is
counted and gone. Subscribers see by `trade_id`, and by `chain` and `seq`, what they missed.
"""

from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple, NoReturn, TypeAlias

import msgspec
import redis
import structlog
import trio
from redis.backoff import NoBackoff
from redis.retry import Retry

from collector.channels import receive_waiting
from collector.records import BookRow, Record, Trade
from collector.settings import Settings
from collector.statistics import Statistics

TRADES_CHANNEL = "kraken_trades"
BOOK_CHANNEL = "kraken_orderbook"

QUEUE_ROWS = 10_000  # rows that may wait for Redis, some 8 MB: more than any burst that was seen (5,000 messages)
PIPELINE_MESSAGES = 1000  # messages of one round trip
TIMEOUT = 2.0  # seconds for Redis to connect or to answer; the queue is worth no more
RETRY_AFTER = 1.0  # seconds
REMEMBERED_TRADES = 10_000  # ids a pair by which a repeated trade is known; a connection's snapshot repeats 50

Row: TypeAlias = BookRow | Trade

log = structlog.get_logger()


class _Batch(NamedTuple):
    """Rows of one offer, and when the oldest frame of them arrived (monotonic seconds)."""

    arrived_at: float
    rows: list[Row]


class PublishQueue:
    """What the book task gives and the publisher takes; giving never waits.

    It outlives the tasks on both ends, and with it the memory of what was published.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._sender, self._receiver = trio.open_memory_channel[_Batch](QUEUE_ROWS)  # no batch is empty
        self._waiting = 0  # rows
        self._published: dict[str, tuple[set[int], deque[int]]] = {}

    def offer(self, records: list[Record]) -> None:
        """Publish the rows among these, if there is room."""
        rows = [record for record in records if isinstance(record, Row)]
        if self._waiting + len(rows) > QUEUE_ROWS:
            self._statistics.unpublished += len(rows)
        elif rows:
            arrived_at = self._statistics.under_way.batch
            self._waiting += len(rows)
            self._sender.send_nowait(_Batch(trio.current_time() if arrived_at is None else arrived_at, rows))

    async def take(self) -> tuple[float, list[Row]]:
        """Wait for rows; all that are there, and when the frame of the first of them arrived.

        A round trip to Redis costs more than a row in it.
        """
        batches = [await self._receiver.receive(), *receive_waiting(self._receiver, QUEUE_ROWS)]
        rows = list(chain.from_iterable(batch.rows for batch in batches))
        self._waiting -= len(rows)
        return batches[0].arrived_at, rows

    def messages(self, records: Iterable[Record]) -> list[tuple[str, bytes]]:
        """The messages of records, by channel: every trade once in this process, no checkpoints."""
        messages: list[tuple[str, bytes]] = []
        for record in records:
            match record:
                case BookRow(type="update") | BookRow(seq=0):
                    messages.append((BOOK_CHANNEL, book_json(record)))
                case Trade() if self._is_new(record):
                    messages.append((TRADES_CHANNEL, trade_json(record)))
        return messages

    def _is_new(self, trade: Trade) -> bool:
        known, order = self._published.setdefault(trade.pair, (set(), deque()))
        if trade.trade_id in known:
            return False
        known.add(trade.trade_id)
        order.append(trade.trade_id)
        if len(order) > REMEMBERED_TRADES:
            known.remove(order.popleft())
        return True


def book_json(row: BookRow) -> bytes:
    """A row of kraken_orderbook as a JSON object, keys as the table's columns, numbers with every digit."""
    return msgspec.json.encode(
        {
            "event_time": row.event_time,
            "pair": row.pair,
            "bids": msgspec.Raw(row.bids),
            "asks": msgspec.Raw(row.asks),
            "type": row.type,
            "checksum": row.checksum,
            "chain": row.chain,
            "seq": row.seq,
            "evicted": None if row.evicted is None else msgspec.Raw(row.evicted),
        }
    )


def trade_json(trade: Trade) -> bytes:
    """A row of kraken_trades likewise."""
    return msgspec.json.encode(
        {
            "event_time": trade.event_time,
            "pair": trade.pair,
            "price": msgspec.Raw(trade.price),
            "volume": msgspec.Raw(trade.volume),
            "side": trade.side,
            "order_type": trade.order_type,
            "trade_id": trade.trade_id,
        }
    )


async def publish(settings: Settings, queue: PublishQueue, statistics: Statistics) -> NoReturn:
    """Publish what is offered, for ever."""
    # Never sent again by itself: what only seems lost would come twice.
    retry = Retry(NoBackoff(), 0)
    client = redis.Redis.from_url(
        settings.redis_address, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=retry
    )
    failing = False
    while True:
        arrived_at, rows = await queue.take()
        messages = queue.messages(rows)
        for start in range(0, len(messages), PIPELINE_MESSAGES):
            part = messages[start : start + PIPELINE_MESSAGES]
            try:
                await trio.to_thread.run_sync(_send, client, part, abandon_on_cancel=True)
            except redis.RedisError as error:
                statistics.unpublished += len(part)
                if not failing:
                    log.warning("redis_unavailable", error=str(error))
                failing = True
                await trio.sleep(RETRY_AFTER)
            else:
                statistics.published += len(part)
                statistics.publish_latency.observe(trio.current_time() - arrived_at)
                if failing:
                    log.info("redis_available", unpublished=statistics.unpublished)
                failing = False


def _send(client: redis.Redis, messages: list[tuple[str, bytes]]) -> None:
    pipeline = client.pipeline(transaction=False)
    for channel, message in messages:
        pipeline.publish(channel, message)
    pipeline.execute()
