"""The publisher: rows to Redis pub/sub as soon as they are verified.

Lossy by design, so that it is never in anybody's way: what it has no room for, and what Redis does not take, is
counted and gone. Subscribers see by `trade_id`, and by `chain` and `seq`, what they missed.
"""

from collections import deque
from collections.abc import Iterable

import msgspec
import redis
import structlog
import trio
from redis.backoff import NoBackoff
from redis.retry import Retry

from collector.records import BookRow, Record, Trade
from collector.settings import Settings
from collector.statistics import Statistics

TRADES_CHANNEL = "kraken_trades"
BOOK_CHANNEL = "kraken_orderbook"

QUEUE_BATCHES = 1000  # batches that may wait for Redis: about a second of a very busy market
PIPELINE_MESSAGES = 1000  # messages of one round trip
TIMEOUT = 2.0  # seconds for Redis to connect or to answer; the queue is worth no more
RETRY_AFTER = 1.0  # seconds
REMEMBERED_TRADES = 10_000  # ids a pair by which a repeated trade is known; a connection's snapshot repeats 50

log = structlog.get_logger()


class PublishQueue:
    """What the book task gives and the publisher takes; giving never waits.

    It outlives the tasks on both ends, and with it the memory of what was published.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._sender, self.receiver = trio.open_memory_channel[tuple[float, list[Record]]](QUEUE_BATCHES)
        self._published: dict[str, tuple[set[int], deque[int]]] = {}

    def offer(self, records: list[Record]) -> None:
        """Publish the rows among these, if there is room."""
        try:
            since = self._statistics.under_way.batch
            self._sender.send_nowait((trio.current_time() if since is None else since, records))
        except trio.WouldBlock:
            self._statistics.unpublished += sum(isinstance(record, BookRow | Trade) for record in records)

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


async def publish(settings: Settings, queue: PublishQueue, statistics: Statistics) -> None:
    """Publish what is offered, for ever."""
    # Never sent again by itself: what only seems lost would come twice.
    retry = Retry(NoBackoff(), 0)
    client = redis.Redis.from_url(
        settings.redis_address, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=retry
    )
    failing = False
    async for since, records in queue.receiver:
        messages = queue.messages(records)
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
                statistics.publish_latency.observe(trio.current_time() - since)
                if failing:
                    log.info("redis_available", unpublished=statistics.unpublished)
                failing = False


def _send(client: redis.Redis, messages: list[tuple[str, bytes]]) -> None:
    pipeline = client.pipeline(transaction=False)
    for channel, message in messages:
        pipeline.publish(channel, message)
    pipeline.execute()
