"""How long a message takes: from the moment it is sent to the Redis subscriber, and to the commit of its rows.

Each frame is sent by the market's own clock, bursts included. The server of frames notes when it sends each, a
subscriber in a process of its own when each arrives, and PostgreSQL when it commits each transaction (that is: decides
to, just before the flush to the disk). All of them read the same clock.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psycopg
from embedded import EmbeddedPostgres, EmbeddedRedis

from bench.contestants import collector
from bench.frame_server import sent_times_of
from bench.processes import BenchError, hear, open_frame_server, open_helper, say, wait_until_settled
from bench.tape import Tape
from bench.throughput import check_stored, new_database, running, wait_until_quiet
from collector.tasks.publish import BOOK_CHANNEL, TRADES_CHANNEL

NANOSECONDS_A_MILLISECOND = 1e6

_COMMITTED = "(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint * 1000"
# Updates alone: the snapshot is sent with the subscription, and the collector's own checkpoints are not sent at all.
_BOOK = f"SELECT seq, {_COMMITTED} FROM kraken_orderbook WHERE type = 'update' ORDER BY seq"  # noqa: S608
_TRADES = f"SELECT trade_id, {_COMMITTED} FROM kraken_trades"  # noqa: S608 - both are of constants


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds that were not exceeded by half, by 99 in 100, and by any of the rows."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Latency:
    """What one run came to.

    Attributes:
        rate: messages a second.
        seconds: for how long.
        to_subscriber: from the sending of a frame to the arrival of each of its rows at the Redis subscriber.
        missed: rows that did not arrive there, which Redis' own road allows.
        to_commit: from the sending to the commit of each row; all of them were committed.

    """

    rate: float
    seconds: float
    to_subscriber: Spread
    missed: int
    to_commit: Spread


@dataclass(frozen=True, slots=True)
class SentTimes:
    """When the frame of each row was sent, in nanoseconds since 1970: updates by their place, trades by their id."""

    updates: list[int]
    trades: dict[int, int]


def measure_latency(tape: Tape, rate: float, server: EmbeddedPostgres, redis: EmbeddedRedis) -> Latency:
    """Send a tape of one pair to the collector at a rate.

    Raises:
        BenchError: a row was not stored, or reached the subscriber twice, or none reached it.

    """
    contestant = collector()
    heard = tape.path.with_suffix(".heard")
    with (
        new_database(server, "latency") as url,
        psycopg.connect(url, autocommit=True) as connection,
        open_helper("bench.subscriber", [str(redis.port), str(heard)]) as subscriber,
        open_frame_server(tape, rate) as frames,
    ):
        hear(subscriber, "subscribed")
        contestant.prepare(url)
        with running(contestant, tape, url, frames.port, redis.url) as process:
            frames.wait_subscribed()
            wait_until_settled(process)
            frames.go()
            wait_until_quiet(connection)
            check_stored(connection, contestant, tape)
        say(subscriber, "stop")
        hear(subscriber, "messages")
        sent = sent_times(tape)
        books = connection.execute(_BOOK).fetchall()
        trades = connection.execute(_TRADES).fetchall()
    committed = [at - sent.updates[place] for place, (_, at) in enumerate(books)]
    committed += [at - sent.trades[trade_id] for trade_id, at in trades]
    places = {seq: place for place, (seq, _) in enumerate(books)}
    arrived = arrivals(heard, sent, places)
    if not arrived:
        raise BenchError("nothing reached the Redis subscriber")
    return Latency(
        rate, tape.messages / rate, spread(arrived.values()), len(committed) - len(arrived), spread(committed)
    )


def sent_times(tape: Tape) -> SentTimes:
    """When the frame of each row was sent, as the server of frames wrote it down."""
    times = SentTimes([], {})
    for frame, at in zip(tape.frames(), array("q", sent_times_of(tape.path).read_bytes()), strict=True):
        message = msgspec.json.decode(frame)
        if message["channel"] == "trade":
            times.trades.update({trade["trade_id"]: at for trade in message["data"]})
        elif message["type"] == "update":
            times.updates.append(at)
    return times


def arrivals(heard: Path, sent: SentTimes, places: dict[int, int]) -> dict[tuple[str, int], int]:
    """How long each row took to the subscriber; `places` says which update of the feed has which `seq`.

    Raises:
        BenchError: a row came twice.

    """
    took: dict[tuple[str, int], int] = {}
    for line in heard.read_bytes().splitlines():
        at, channel, text = line.split(b" ", 2)
        row = msgspec.json.decode(text)
        if row.get("type") == "snapshot":
            continue
        key = (BOOK_CHANNEL, row["seq"]) if channel.decode() == BOOK_CHANNEL else (TRADES_CHANNEL, row["trade_id"])
        if key in took:
            raise BenchError(f"{key} reached the Redis subscriber twice")
        took[key] = int(at) - (sent.trades[key[1]] if key[0] == TRADES_CHANNEL else sent.updates[places[key[1]]])
    return took


def spread(nanoseconds: Iterable[int]) -> Spread:
    """The spread of some times."""
    ordered = sorted(nanoseconds)
    return Spread(
        *(ordered[round(share * (len(ordered) - 1))] / NANOSECONDS_A_MILLISECOND for share in (0.5, 0.99, 1.0))
    )
