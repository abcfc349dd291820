"""What was collected, read from Python: trades, order books, candles and coverage, with every digit.

Synopsis::

    from datetime import UTC, datetime
    from collector import history

    since, until = datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)
    with history.connect() as connection:
        for trade in history.trades(connection, "BTC/USD", since, until):
            print(trade.event_time, trade.side, trade.volume, trade.price)
        table = history.candles(connection, "BTC/USD", timedelta(minutes=1), since, until).to_arrow()
        book = history.book_at(connection, "BTC/USD", since, levels=10)

Each function but `book_at` gives `Rows`, which are read when they are iterated over, with constant memory, or at once
by `to_arrow()`. `pair` is Kraken's symbol; a range goes from `since` up to before `until`, both aware times, and None
is without a bound. Prices are in the quote currency, sizes and volumes in the base currency, times are Kraken's, UTC.
All of it is read from PostgreSQL: `kraken_trades`, `kraken_orderbook` and `kraken_coverage`.
"""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from collector.history import csv_lines
from collector.history.book_rows import OnMissing
from collector.history.chains import Chain, chains_in
from collector.history.columns import (
    CANDLE_COLUMNS,
    COVERAGE_COLUMNS,
    LEVEL_COLUMNS,
    TRADE_COLUMNS,
    UPDATE_COLUMNS,
    Evicted,
    top_columns,
)
from collector.history.levels import level_changes, top_samples
from collector.history.rows import Rows
from collector.history.spans import Span, parts, read_span, within
from collector.history.values import (
    BookUpdate,
    Candle,
    DoesNotFit,
    LevelChange,
    MissingRows,
    Run,
    TopOfBook,
    Trade,
    top_of_book,
)
from collector.kraken.orderbook import CHECKSUM_LEVELS
from collector.kraken.times import microseconds
from collector.records import BookRow
from collector.settings import load_settings
from collector.storage import stored_csv
from collector.storage.database import Connection
from collector.storage.database import connect as open_connection
from collector.storage.history import Book, NoBook, PriceLevel, book_at
from collector.storage.stored_rows import prepare_reading
from collector.storage.stored_runs import stored_runs

__all__ = [
    "Book",
    "BookUpdate",
    "Candle",
    "DoesNotFit",
    "Evicted",
    "LevelChange",
    "MissingRows",
    "NoBook",
    "PriceLevel",
    "Rows",
    "Run",
    "TopOfBook",
    "Trade",
    "book_at",
    "candles",
    "connect",
    "coverage",
    "levels",
    "top",
    "trades",
    "updates",
]

_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)


def connect(url: str | None = None) -> Connection:
    """Open a connection for reading; None is `DATABASE_URL` of the environment or of `.env`.

    Use it in a `with` statement, or close it.

    Raises:
        StorageUnavailable: the database cannot be had now.
        UnusableDatabase: the URL is none.
        SettingsError: `url` is None and the settings are wrong.

    """
    address = load_settings().database_url.get_secret_value() if url is None else url
    connection = open_connection(address, application_name="collector: history")
    prepare_reading(connection)
    return connection


def trades(
    connection: Connection, pair: str, since: datetime | None = None, until: datetime | None = None
) -> Rows[Trade]:
    """The trades of a pair, by time and then by id, each once; those that were fetched over REST later are among them.

    Raises:
        ValueError: a time without a zone, or `until` is not after `since`.

    """
    span = read_span(since, until)

    def read() -> Iterator[bytes]:
        for begin, end in parts(_trade_span(connection, pair, span), _DAY):
            yield from stored_csv.trade_lines(connection, pair, begin, end)

    return Rows(connection, TRADE_COLUMNS, Trade, read)


def candles(
    connection: Connection, pair: str, width: timedelta, since: datetime | None = None, until: datetime | None = None
) -> Rows[Candle]:
    """Candles of a pair from the trades of a range, in buckets of `width`, counted from 1970-01-01.

    Buckets without trades are left out.

    Raises:
        ValueError: a width that is not positive, a time without a zone, or `until` is not after `since`.

    """
    if width <= timedelta():
        raise ValueError(f"the width of a candle must be positive: {width}")
    span = read_span(since, until)

    def read() -> Iterator[bytes]:
        whole = -(-_DAY // width) * width  # the first multiple of the width that is a day or longer: no candle is cut
        for begin, end in parts(_trade_span(connection, pair, span), whole):
            yield from stored_csv.candle_lines(connection, pair, width, begin, end)

    return Rows(connection, CANDLE_COLUMNS, Candle, read)


def updates(
    connection: Connection,
    pair: str,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    on_missing: OnMissing | None = None,
) -> Rows[BookUpdate]:
    """The rows of a pair's order book, chain by chain in the order in which they began, in each by seq.

    A chain that goes on from before the range begins with a snapshot as of `since`, with the seq and the checksum of
    the last row before it, so that every chain stands alone. A row belongs to the range if it takes effect there: by
    its time, or by an earlier time of a row behind it. Chains may overlap in time, each complete in itself. Where rows
    are missing from the database, those up to the chain's next snapshot are left out, and `on_missing` is told in a
    line (None: by the warning `MissingRows`); seq shows it too. Rows of an earlier collector, which belong to no chain,
    are left out.

    Raises:
        ValueError: a time without a zone, or `until` is not after `since`.

    """
    span = read_span(since, until)

    def read() -> Iterator[bytes]:
        return map(csv_lines.update_line, _book_rows(connection, pair, span, on_missing))

    return Rows(connection, UPDATE_COLUMNS, BookUpdate, read)


def levels(
    connection: Connection,
    pair: str,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    on_missing: OnMissing | None = None,
) -> Rows[LevelChange]:
    """The same as single levels: a row for each price whose size changed, size 0 where nothing is left.

    Every chain begins with an empty book. What fell out of the collected depth is gone like any other level, so that
    the last row of each price is the book.

    Raises:
        ValueError: a time without a zone, or `until` is not after `since`.

    """
    span = read_span(since, until)

    def read() -> Iterator[bytes]:
        return map(csv_lines.change_line, level_changes(_book_rows(connection, pair, span, on_missing)))

    return Rows(connection, LEVEL_COLUMNS, LevelChange, read)


def top(
    connection: Connection,
    pair: str,
    every: timedelta,
    levels: int,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    on_missing: OnMissing | None = None,
) -> Rows[TopOfBook]:
    """Samples of the best `levels` of each side: the book at each multiple of `every`, counted from 1970-01-01.

    Times of which there is no verified book have no sample: nobody watched, or more than ten levels are asked for and
    an audit found the book wrong from then on. Where chains overlap, the one that began first is followed to its end.
    As CSV and Arrow, each price and each size is a column of its own: bid_price_1, bid_size_1, ask_price_1,
    ask_size_1, bid_price_2…, empty or NULL where a side has fewer levels.

    Raises:
        ValueError: an interval that is not positive, less than one level, a time without a zone, or `until` is not
            after `since`.

    """
    if every <= timedelta():
        raise ValueError(f"the time between two samples must be positive: {every}")
    if levels < 1:
        raise ValueError(f"a sample has one level or more, not {levels}")
    span = read_span(since, until)

    def read() -> Iterator[bytes]:
        step, taken = every // _MICROSECOND, 0
        for chain in chains_in(connection, pair, span, on_missing or _warn):
            first = max(-(-chain.first // step) * step, taken)
            for sample in top_samples(chain.rows, first, _verified_until(chain, span, levels), step, levels):
                yield csv_lines.sample_line(sample, chain.run.chain, levels)
                taken = sample.at + step

    return Rows(connection, top_columns(levels), top_of_book, read)


def coverage(
    connection: Connection, pair: str | None = None, since: datetime | None = None, until: datetime | None = None
) -> Rows[Run]:
    """The runs of verified data that have a part in a range, of a pair or (None) of all, both channels.

    Where no run is, nobody was watching.

    Raises:
        ValueError: a time without a zone, or `until` is not after `since`.

    """
    span = read_span(since, until)

    def read() -> Iterator[bytes]:
        runs = stored_runs(connection, None if pair is None else [pair], span.since, span.until)
        return map(csv_lines.run_line, runs)

    return Rows(connection, COVERAGE_COLUMNS, Run, read)


def _book_rows(connection: Connection, pair: str, span: Span, on_missing: OnMissing | None) -> Iterator[BookRow]:
    for chain in chains_in(connection, pair, span, on_missing or _warn):
        for effect in chain.rows:
            yield effect.row


def _warn(missing: str) -> None:
    warnings.warn(missing, MissingRows, stacklevel=2)


def _verified_until(chain: Chain, span: Span, levels: int) -> int:
    """Before which time, in microseconds, a chain has a verified book of that many levels in a range."""
    end = chain.last + 1  # coverage includes its last moment, a range does not include its end
    if span.until is not None:
        end = min(end, microseconds(span.until.replace(tzinfo=UTC)))
    if chain.run.suspect_since is not None and levels > CHECKSUM_LEVELS:
        end = min(end, microseconds(datetime.fromisoformat(chain.run.suspect_since).replace(tzinfo=UTC)))
    return end


def _trade_span(connection: Connection, pair: str, span: Span) -> Span | None:
    """The part of a range in which a pair may have trades: ids rise with the time, give or take less than a day."""
    found = stored_csv.trade_times(connection, pair)
    return None if found is None else within(span, found[0] - _DAY, found[1] + _DAY)
