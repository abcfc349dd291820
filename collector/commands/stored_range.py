"""What commands that read the past share: the range and the pairs that are asked for, held against what is stored."""

from collections.abc import Sequence
from datetime import datetime

from collector.commands.arguments import WrongUsage, read_time
from collector.errors import UnusableDatabase
from collector.kraken.pairs import nearest_symbols
from collector.storage import stored_rows, stored_trades
from collector.storage.database import Connection, translated
from collector.storage.schema import TABLES
from collector.storage.table_faults import columns
from collector.verification.checks import TimeRange

READ_TABLES = ("kraken_trades", "kraken_orderbook", "kraken_coverage", "kraken_absent_trades")


def read_range(since: str | None, until: str | None) -> TimeRange:
    """Read the options --since and --until.

    Raises:
        WrongUsage: one is no time, or they are the wrong way round.

    """
    span = TimeRange(_read_bound("--since", since), _read_bound("--until", until))
    if span.since is not None and span.until is not None and span.since >= span.until:
        raise WrongUsage(f"--until: got {until!r}; it takes a time after that of --since, {since!r}")
    return span


def refuse_unready(connection: Connection) -> None:
    """See that the tables are there.

    Raises:
        UnusableDatabase: they are not, or are older than this collector.

    """
    for table in READ_TABLES:
        with translated():
            present = columns(connection, table)
        if not TABLES[table].keys() <= present.keys():
            raise UnusableDatabase(f"{table} is not there, or older than this collector: run its migrate command")


def refuse_unknown(connection: Connection, pairs: Sequence[str] | None) -> None:
    """See that something of each pair is stored.

    Raises:
        WrongUsage: nothing is; with what else there is.

    """
    if pairs is None:
        return
    known = stored_trades.stored_pairs(connection)
    for pair in pairs:
        if pair not in known and not stored_rows.has_book(connection, pair):
            nearest = ", ".join(nearest_symbols(pair, known) or known[:3]) or "none yet"
            raise WrongUsage(f"--pairs: got {pair!r}, of which nothing is stored; stored are, for example: {nearest}")


def describe_range(span: TimeRange, covered: tuple[str, str] | None) -> str:
    """A range in which nothing was found, and where to look instead."""
    if covered is None:
        return "yet"
    begin = "" if span.since is None else f"from {span.since} "
    end = "on" if span.until is None else f"up to {span.until}"
    return f"{begin}{end}; coverage goes from {covered[0]} to {covered[1]}"


def _read_bound(option: str, text: str | None) -> datetime | None:
    """A time in UTC without a zone, as the tables have it."""
    return None if text is None else read_time(option, text).replace(tzinfo=None)
