"""The `book` command: exact digits out, and one clear line where there is no book."""

import json
import re
from decimal import Decimal

import pytest

from collector.commands.book import book
from collector.kraken.times import read_time
from collector.storage.database import connect
from collector.storage.partitions import ensure_day

NOON = "2026-08-24T12:00:00.000000Z"
RUN = """
INSERT INTO kraken_coverage (pair, channel, chain, started_at, last_at, updates, rows, spool)
VALUES ('DOGE/USD', 'book', 1, '2026-08-24 12:00', '2026-08-24 13:00', 0, 1, gen_random_uuid())
"""
SNAPSHOT = """
INSERT INTO kraken_orderbook VALUES ('2026-08-24 12:00', 'DOGE/USD', '[[0.00000010, 4.00000000], [0.00000009, 2]]',
    '[[12345678901234567890.123456789012345678, 0.00000001]]', 'snapshot', 0, 1, 0)
"""


@pytest.fixture
def _stored(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database with one book, that the settings name."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    with connect(migrated_url, application_name="tests") as connection:
        ensure_day(connection, read_time(NOON).date())
        connection.execute(SNAPSHOT)
        connection.execute(RUN)


@pytest.mark.usefixtures("_stored")
@pytest.mark.parametrize("at", ["2026-08-24T12:00:00Z", "2026-08-24 12:00", "2026-08-24T14:00:00+02:00"])
def test_json_has_every_digit(capsys: pytest.CaptureFixture[str], at: str) -> None:
    """Prevents a digit from being rounded, a size from being written as 1E-8, and zones from being mixed up."""
    assert book("XDG/USD", at, as_json=True) == 0
    out, err = capsys.readouterr()
    assert out == (
        f'{{"pair":"DOGE/USD","at":"{NOON}","bids":[[0.00000010,4.00000000],[0.00000009,2]],'
        '"asks":[[12345678901234567890.123456789012345678,0.00000001]]}\n'
    )
    assert json.loads(out, parse_float=Decimal)["bids"][0] == [Decimal("0.00000010"), Decimal(4)]
    assert err == ""


@pytest.mark.usefixtures("_stored")
def test_table_shows_both_sides_from_their_best(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a person from being shown less than every digit, or the wrong side."""
    monkeypatch.setenv("COLUMNS", "120")
    assert book("DOGE/USD", NOON) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [re.split(r"\s*[┃│]\s*", line.strip()) for line in lines if "0.000000" in line and "│" in line]
    assert [[cell for cell in row if cell] for row in cells] == [
        ["4.00000000", "0.00000010", "12345678901234567890.123456789012345678", "0.00000001"],
        ["2", "0.00000009"],
    ]


@pytest.mark.usefixtures("_stored")
def test_levels_limit_each_side(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents the limit from being passed over."""
    assert book("DOGE/USD", NOON, 1, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["bids"]), len(found["asks"])) == (1, 1)


@pytest.mark.usefixtures("_stored")
@pytest.mark.parametrize(
    ("question", "status", "line"),
    [
        (("DOGE/USD", "yesterday"), 2, "--at: got 'yesterday'; it takes a time such as 2026-01-31T12:00:00Z"),
        (("DOGE/USD", "0001-01-01T00:00+14:00"), 2, "--at: got '0001-01-01T00:00"),
        (("DOGE/USD", "1999-01-01"), 2, "--at: got '1999-01-01'; it takes a time from 2013 on, when Kraken began"),
        (("DOGE", NOON), 2, "PAIR: got 'DOGE'; it takes one of Kraken's symbols, such as BTC/USD"),
        (("DOGE/USD,BTC/USD", NOON), 2, "PAIR: got 'DOGE/USD,BTC/USD'; it takes one of Kraken's symbols"),
        (("BTC/USD", NOON), 1, "no verified book of BTC/USD at 2026-08-24 12:00:00: nobody has ever watched it"),
        (("DOGE/USD", "2026-08-24T11:00"), 1, "no verified book of DOGE/USD at 2026-08-24 11:00:00: nobody was"),
        (("DOGE/USD", "2026-08-24T13:01"), 1, "no verified book of DOGE/USD at 2026-08-24 13:01:00: it is known"),
    ],
)
def test_no_book_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], question: tuple[str, str, int | None], status: int, line: str
) -> None:
    """Prevents a traceback, a stale book or an empty answer where the question or its time is wrong."""
    assert book(*question) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "status", "line"),
    [
        (None, 2, "DATABASE_URL: it is not set"),
        ("postgresql://postgres:secret@127.0.0.1:1/nowhere", 1, "The database cannot be reached: "),
    ],
)
def test_database_that_is_not_there_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str | None, status: int, line: str
) -> None:
    """Prevents a database that is down from being told by a traceback, or with its password."""
    if url is not None:
        monkeypatch.setenv("DATABASE_URL", url)
    assert book("BTC/USD", NOON) == status
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), "secret" in err) == ("", 1, False)
    assert err.startswith(line)


def test_database_without_the_schema_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """Prevents a database that was never migrated from being told as a fault of SQL."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert book("BTC/USD", NOON) == 2
    assert capsys.readouterr().err == "the database has not got this collector's schema: run its migrate command\n"
