"""`replay`: the stored market as a Kraken on this machine, for a bot or a collector to be pointed at."""

import math
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

from collector import exit_status
from collector.commands.arguments import WrongUsage, read_pairs, read_time, told_in_one_line
from collector.commands.serving import DEFAULT_PORT, serve_until_stopped
from collector.errors import UnusableDatabase
from collector.kraken.pairs import nearest_symbols
from collector.kraken.server.source import format_nanoseconds
from collector.replay.market import StoredMarket, read_market
from collector.replay.readers import Readers
from collector.replay.source import ReplaySource
from collector.settings import load_settings
from collector.storage.database import Connection, connect, translated
from collector.storage.schema import TABLES
from collector.storage.stored_rows import prepare_reading
from collector.storage.stored_runs import covered_span, stored_runs
from collector.storage.table_faults import columns

__all__ = ["DEFAULT_PORT", "replay"]

READ_TABLES = ("kraken_trades", "kraken_orderbook", "kraken_coverage")
FASTEST = "max"
# Seconds after which a thread that reads history lets the one that sends go on: the interpreter's 5 ms would show in
# the spacing of messages.
SWITCH_INTERVAL = 0.0005


@told_in_one_line
def replay(
    since: str,
    until: str,
    pairs: str | None = None,
    speed: str = "1",
    port: int = DEFAULT_PORT,
    *,
    loop: bool = False,
) -> int:
    """Serve what is stored of some pairs (a comma list; None: of all) until Ctrl-C or SIGTERM.

    `speed` is how many times faster than it was, or `max` for as fast as a client reads. Returns the exit status: 0
    stopped, 1 nothing was watched in that range, 2 wrong usage.
    """
    begin, end = _read_range(since, until)
    wanted = None if pairs is None else read_pairs("--pairs", pairs)
    times_faster = _read_speed(speed)
    url = load_settings().database_url.get_secret_value()
    connection = connect(url, application_name="collector: replay")
    try:
        _refuse_unready(connection)
        _refuse_unwatched(connection, wanted)
        prepare_reading(connection)
        market = read_market(connection, wanted, begin, end)
        span = covered_span(connection)
    finally:
        connection.close()
    if market is None:
        covered = "no market has been watched yet" if span is None else f"coverage goes from {span[0]} to {span[1]}"
        print(f"Nothing was watched from {begin} to {end}; {covered}.", file=sys.stderr)
        return exit_status.FOUND_WRONG
    print(_describe(market), file=sys.stderr, flush=True)
    sys.setswitchinterval(SWITCH_INTERVAL)
    return serve_until_stopped(partial(_open_source, url, market, times_faster, loop=loop), port)


@asynccontextmanager
async def _open_source(
    url: str, market: StoredMarket, speed: float | None, *, loop: bool
) -> AsyncGenerator[ReplaySource, None]:
    readers = Readers(url)
    try:
        yield ReplaySource(market, readers, speed, loop=loop)
    finally:
        readers.close()


def _read_range(since: str, until: str) -> tuple[datetime, datetime]:
    """Both times in UTC without a zone, as the tables have them."""
    begin, end = read_time("--since", since), read_time("--until", until)
    if begin >= end:
        raise WrongUsage(f"--until: got {until!r}; it takes a time after that of --since, {since!r}")
    return begin.replace(tzinfo=None), end.replace(tzinfo=None)


def _read_speed(text: str) -> float | None:
    if text == FASTEST:
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise WrongUsage(f"--speed: got {text!r}; it takes a number such as 1 or 10, or {FASTEST}")
    return speed


def _refuse_unready(connection: Connection) -> None:
    for table in READ_TABLES:
        with translated():
            present = columns(connection, table)
        if not TABLES[table].keys() <= present.keys():
            raise UnusableDatabase(f"{table} is not there, or older than this collector: run its migrate command")


def _refuse_unwatched(connection: Connection, pairs: Sequence[str] | None) -> None:
    if pairs is None:
        return
    watched = sorted({run.pair for run in stored_runs(connection, None, None, None)})
    for pair in pairs:
        if pair not in watched:
            nearest = ", ".join(nearest_symbols(pair, watched) or watched[:3]) or "none yet"
            raise WrongUsage(f"--pairs: got {pair!r}, which was never watched; watched were, for example: {nearest}")


def _describe(market: StoredMarket) -> str:
    """What a client can subscribe to."""
    lines = [f"Replaying from {format_nanoseconds(market.start)} up to {format_nanoseconds(market.end)}:"]
    for symbol in market.instruments:
        depths = market.depths[symbol]
        books = market.stretches("book", symbol, max(depths, default=0))
        trades = market.stretches("trade", symbol, 0)
        shown = [f"a book of depth {', '.join(map(str, depths))} in {_pieces(len(books))}"] if depths and books else []
        shown += [f"trades in {_pieces(len(trades))}"] if trades else []
        lines.append(f"  {symbol}: {', '.join(shown) or 'nothing'}")
    return "\n".join(lines)


def _pieces(count: int) -> str:
    return "one piece" if count == 1 else f"{count} pieces"
