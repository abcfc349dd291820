"""Counts that do not grow with the table: equal to what plain counting says."""

from datetime import datetime

import psycopg
from stored_market import CHECKPOINT_EVERY, PAIRS, Market, now

from collector.storage.database import connect
from collector.storage.row_counts import DAY, HOUR, MINUTE, PairCounts, count_rows


def counted(market: Market) -> tuple[datetime, dict[str, PairCounts]]:
    """The counts, and up to when."""
    moment = now()
    with connect(market.url, application_name="tests") as connection:
        return moment, count_rows(connection, moment, PAIRS)


def test_trades_are_counted_exactly(market: Market) -> None:
    """Prevents a count by ids that holes, rows without a number, or the number 0 lead astray."""
    moment, counts = counted(market)
    for pair in PAIRS:
        for length, trades in zip((MINUTE, HOUR, DAY), counts[pair].trades, strict=True):
            query = "SELECT count(*) FROM kraken_trades WHERE pair = %s AND event_time >= %s"
            assert trades == market.count(query, pair, moment - length)
        assert counts[pair].trades.hour > 100


def test_missing_trades_of_the_last_day_are_counted(market: Market) -> None:
    """Prevents holes that Kraken has too from being told as missing, and real ones from not being told."""
    moment, counts = counted(market)
    holes = """
        SELECT count(*) FROM generate_series(
            (SELECT max(trade_id) + 1 FROM kraken_trades WHERE pair = %(pair)s AND event_time < %(since)s),
            (SELECT max(trade_id) FROM kraken_trades WHERE pair = %(pair)s)
        ) AS id
        WHERE NOT EXISTS (SELECT FROM kraken_trades WHERE pair = %(pair)s AND trade_id = id)
          AND NOT EXISTS (SELECT FROM kraken_absent_trades WHERE pair = %(pair)s AND id BETWEEN first_id AND last_id)
    """
    with psycopg.connect(market.url) as connection:
        for pair in PAIRS:
            given = {"pair": pair, "since": moment - DAY}
            assert connection.execute(holes, given).fetchone() == (counts[pair].missing_trades,)
            assert counts[pair].missing_trades > 0


def test_book_rows_are_estimated_within_a_checkpoint(market: Market) -> None:
    """Prevents an estimate that is further off than the rows between two checkpoints, or a minute that is one."""
    moment, counts = counted(market)
    for pair in PAIRS:
        book = counts[pair].book
        query = "SELECT count(*) FROM kraken_orderbook WHERE pair = %s AND event_time > %s"
        assert book.minute == market.count(query, pair, moment - MINUTE)
        for length, estimate in ((HOUR, book.hour), (DAY, book.day)):
            assert abs(estimate - market.count(query, pair, moment - length)) < CHECKPOINT_EVERY
        assert book.day > book.hour > 500


def read_in_sequence(connection: psycopg.Connection) -> int:
    """Rows of the book that were read without an index, by any statement before this one."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT sum(seq_tup_read)::int FROM pg_stat_user_tables WHERE relname ~ '^kraken_orderbook_'"
    ).fetchone()
    assert row is not None
    return row[0]


def test_no_statement_reads_the_whole_book(market: Market) -> None:
    """Prevents `status` from scanning the days of a table that has gigabytes a day."""
    with connect(market.url, application_name="tests") as connection:
        connection.execute("SET enable_seqscan = off")  # tables of a few blocks are read whole by any planner
        before = read_in_sequence(connection)
        count_rows(connection, now(), PAIRS)
        assert read_in_sequence(connection) == before
        assert connection.execute("SELECT FROM kraken_orderbook WHERE asks = '[1]'").fetchone() is None
        assert read_in_sequence(connection) > before
