"""`export` writes every row, digit for digit, as other tools read it; it goes on where it was broken off."""

import csv
import errno
import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import psycopg
import pyarrow.parquet as pq
import pytest
from simulated_store import MIDNIGHT, PAIRS, simulate, store

from collector import history
from collector.commands.export import export
from collector.export import exporting, files, parquet
from collector.export.formats import make_format
from collector.kraken.times import format_time
from collector.storage import stored_csv
from collector.storage.database import connect
from collector.storage.migrations import migrate

EVERYTHING = "trades,book,candles,book-levels,book-top"
DAYS = ("2023-11-14", "2023-11-15")
PAIR = PAIRS[0]


@pytest.fixture(scope="module")
def exported(market_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything in every format, made once by the command line as a person would."""
    out = tmp_path_factory.mktemp("exported")
    for format_name in ("parquet", "csv", "jsonl"):
        arguments = [
            "--out",
            str(out),
            "--what",
            EVERYTHING,
            "--format",
            format_name,
            "--width",
            "10s",
        ]
        arguments += ["--levels", "3", "--every", "1s"]
        done = subprocess.run(
            [sys.executable, "-m", "collector", "export", *arguments],
            env=os.environ | {"DATABASE_URL": market_url, "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=out,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout.partition(" files")[0]) == (0, "20"), done.stderr
        assert "BTC/USD, book: not watched from 2023-11-15T00:0" in done.stderr
    return out


@pytest.fixture
def run_export(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    def run(url: str, **options: object) -> tuple[int, str, str]:
        monkeypatch.setenv("DATABASE_URL", url)
        status = export(options.pop("out", tmp_path / "out"), **options)  # type: ignore[arg-type]
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def no_space(_: int) -> None:
    """What a full disk answers to fsync."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def file_of(folder: Path, what: str, pair: str, day: str, suffix: str) -> Path:
    return folder / what / f"pair={pair.replace('/', '-')}" / f"date={day}" / f"{what}.{suffix}"


def stored(url: str, what: str, pair: str, day: str) -> Iterator[tuple]:
    """The rows of a day, as `history` reads them."""
    since = datetime.fromisoformat(day).replace(tzinfo=UTC)
    until = since + timedelta(days=1)
    with history.connect(url) as connection:
        results = {
            "trades": history.trades(connection, pair, since, until),
            "book": history.updates(connection, pair, since, until),
            "candles": history.candles(connection, pair, timedelta(seconds=10), since, until),
            "book-levels": history.levels(connection, pair, since, until),
        }
        yield from results[what]


FLAT = ("trades", "candles", "book-levels")


@pytest.mark.parametrize("what", FLAT)
def test_duckdb_polars_and_pandas_read_every_row(market_url: str, exported: Path, what: str) -> None:
    """Prevents a file that a tool cannot open, or in which it finds other rows or other digits."""
    for pair in PAIRS:
        for day in DAYS:
            path = str(file_of(exported, what, pair, day, "parquet"))
            rows = list(map(tuple, stored(market_url, what, pair, day)))
            assert rows
            with duckdb.connect() as database:
                database.execute("SET TimeZone = 'UTC'")
                columns = [
                    column[0]
                    for column in database.execute(
                        "DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning = false)", [path]
                    ).fetchall()
                ]
                shown = [
                    f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ')" if name in {"event_time", "bucket"} else name
                    for name in columns
                ]
                found = database.execute(
                    f"SELECT {', '.join(shown)} FROM read_parquet(?, hive_partitioning = false)", [path]
                ).fetchall()
            assert found == [(format_time(row[0]), *row[1:]) for row in rows]
            assert pl.read_parquet(path, hive_partitioning=False).rows() == rows
            frame = pd.read_parquet(path, partitioning=None)
            assert list(frame.itertuples(index=False, name=None)) == rows


def test_sums_are_equal_everywhere(market_url: str, exported: Path) -> None:
    """Prevents an exported hour that gives one tool another sum than the next, or than the database."""
    with psycopg.connect(market_url) as connection:
        (expected,) = connection.execute(
            "SELECT count(*), sum(volume), sum(price * volume) FROM kraken_trades WHERE pair = %s", [PAIR]
        ).fetchall()
    folder = exported / "trades"
    with duckdb.connect() as database:
        found = database.execute(
            "SELECT count(*), sum(volume), sum(price * volume) FROM read_parquet(?, hive_partitioning = true)"
            " WHERE pair = 'BTC-USD'",
            [str(folder / "**" / "*.parquet")],
        ).fetchall()
        assert found == [expected]
        of_text = "SELECT count(*), sum(volume), sum(price * volume) FROM {}(?, hive_partitioning = true, columns = {})"
        types = (
            "{event_time: 'TIMESTAMPTZ', price: 'DECIMAL(38, 12)', volume: 'DECIMAL(38, 12)', side: 'TEXT',"
            " order_type: 'TEXT', trade_id: 'BIGINT'}"
        )
        for reader, suffix in (("read_csv", "csv"), ("read_json", "jsonl")):
            pattern = str(folder / "pair=BTC-USD" / "*" / f"*.{suffix}")
            assert database.execute(of_text.format(reader, types), [pattern]).fetchall() == [expected]
    table = pl.scan_parquet(folder / "**" / "*.parquet", hive_partitioning=True)
    of_pair = table.filter(pl.col("pair") == "BTC-USD").select("price", "volume").collect()
    frame = pd.read_parquet([str(path) for path in sorted(folder.glob("pair=BTC-USD/*/*.parquet"))])
    for rows in (of_pair.rows(), frame[["price", "volume"]].itertuples(index=False, name=None)):
        pairs = list(rows)
        sums = len(pairs), sum(volume for _, volume in pairs), sum(price * volume for price, volume in pairs)
        assert sums == expected


def test_text_files_hold_the_digits_that_are_stored(market_url: str, exported: Path) -> None:
    """Prevents zeros at the end, which Kraken sends, from being cut, and numbers from being written otherwise."""
    with psycopg.connect(market_url) as connection:
        for pair in PAIRS:
            expected = connection.execute(
                "SELECT price::text, volume::text FROM kraken_trades WHERE pair = %s ORDER BY event_time, trade_id",
                [pair],
            ).fetchall()
            paths = [file_of(exported, "trades", pair, day, "csv") for day in DAYS]
            rows = chain.from_iterable(csv.DictReader(path.read_text().splitlines()) for path in paths)
            assert [(row["price"], row["volume"]) for row in rows] == expected
            lines = [line for path in paths for line in path.with_suffix(".jsonl").read_text().splitlines()]
            objects = [json.loads(line, parse_float=str, parse_int=str) for line in lines]
            assert [(row["price"], row["volume"]) for row in objects] == expected


def test_books_stand_alone_in_every_format(market_url: str, exported: Path) -> None:
    """Prevents a day's book that needs the day before, and other levels in one format than in another."""
    for pair in PAIRS:
        for day in DAYS:
            rows = list(stored(market_url, "book", pair, day))
            path = file_of(exported, "book", pair, day, "parquet")
            with duckdb.connect() as database:
                found = database.execute(
                    "SELECT type, bids, asks, checksum, seq, evicted FROM read_parquet(?)", [str(path)]
                ).fetchall()
            assert found[0][0] == "snapshot"
            for row, (kind, bids, asks, checksum, seq, evicted) in zip(rows, found, strict=True):
                assert (kind, checksum, seq) == (row.type, row.checksum, row.seq)
                for levels, expected in ((bids, row.bids), (asks, row.asks)):
                    assert [(level["price"], level["size"]) for level in levels] == expected
                assert evicted == (None if row.evicted is None else row.evicted._asdict())
            frame = pl.read_parquet(path)
            assert frame["seq"].to_list() == [row.seq for row in rows]
            assert [[tuple(level.values()) for level in levels] for levels in frame["bids"]] == [
                row.bids for row in rows
            ]
            objects = [
                json.loads(line, parse_float=Decimal, parse_int=Decimal)
                for line in path.with_suffix(".jsonl").read_text().splitlines()
            ]
            texts = list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))
            for row, one, other in zip(rows, objects, texts, strict=True):
                assert [tuple(level) for level in one["bids"]] == row.bids
                assert json.loads(other["asks"], parse_float=Decimal, parse_int=Decimal) == one["asks"]
                assert one["evicted"] == (None if row.evicted is None else row.evicted._asdict())


def test_samples_are_columns(market_url: str, exported: Path) -> None:
    """Prevents a table of samples that has to be taken apart before anybody can compute on it."""
    path = file_of(exported, "book-top", PAIR, DAYS[1], "parquet")
    frame = pl.read_parquet(path, hive_partitioning=False)
    assert frame.columns[:6] == ["event_time", "chain", "bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1"]
    assert frame.width == 2 + 3 * 4
    assert frame["event_time"][0] == MIDNIGHT
    assert 85 < frame.height < 135, "a sample a second, and none where nobody was watching"
    with history.connect(market_url) as connection:
        book = history.book_at(connection, PAIR, frame["event_time"][33], 1)
    assert (frame["bid_price_1"][33], frame["ask_size_1"][33]) == (book.bids[0].price, book.asks[0].size)


def test_coverage_is_in_every_file(market_url: str, exported: Path) -> None:
    """Prevents a file that does not tell "nothing happened" from "nobody was watching"."""
    for what, channel in (("trades", "trade"), ("book", "book")):
        path = file_of(exported, what, PAIR, DAYS[1], "parquet")
        said = json.loads(pq.read_metadata(path).metadata[b"collector"])
        with history.connect(market_url) as connection:
            runs = [run for run in history.coverage(connection, PAIR, MIDNIGHT) if run.channel == channel]
        assert [part["chain"] for part in said["coverage"]] == [run.chain for run in runs]
        assert said["coverage"][0]["since"] == format_time(MIDNIGHT)
        assert said["coverage"][0]["until"] == format_time(runs[0].last_at)
        assert said["coverage"][0]["end_reason"] == "closed_1012"
        assert said["rows"] == pq.read_metadata(path).num_rows
        for suffix in ("csv", "jsonl"):
            assert json.loads(path.with_name(f"_{what}.{suffix}.json").read_text()) == said
        with duckdb.connect() as database:
            keys = database.execute("SELECT key FROM parquet_kv_metadata(?)", [str(path)]).fetchall()
        assert (b"collector",) in keys
    assert not list(exported.rglob("*.partial"))


def test_an_export_goes_on_where_it_was_broken_off(
    market_url: str, run_export: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a file that is half-written from being taken for finished, and a finished one from being made again."""
    real = exporting.count_trades

    def break_off(*arguments: object) -> int:
        if arguments[1] == PAIRS[1]:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "count_trades", break_off)
    with pytest.raises(KeyboardInterrupt):
        run_export(market_url, what="trades")
    monkeypatch.undo()
    first = sorted((tmp_path / "out").rglob("*.parquet"))
    assert len(first) == 2
    inodes = [path.stat().st_ino for path in first]
    left = first[0].with_name(f".{first[0].name}.partial")
    left.write_bytes(b"half of it")
    first[1].unlink()
    first[1].with_name(f".{first[1].name}.partial").write_bytes(b"half of it")
    assert run_export(market_url, what="trades")[1].startswith("3 files written: ")
    assert first[0].stat().st_ino == inodes[0]
    assert sum(pq.read_metadata(path).num_rows for path in first) == sum(
        1 for day in DAYS for _ in stored(market_url, "trades", PAIR, day)
    )
    status, out, _ = run_export(market_url, what="trades")
    assert (status, out[:34]) == (0, "0 files written: 0 rows, 0 bytes; ")
    assert "4 were finished already" in out


@pytest.mark.parametrize("format_name", ["parquet", "csv"])
def test_what_was_stored_since_is_exported_again(
    migrated_url: str,
    run_export: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format_name: str,
) -> None:
    """Prevents a day that was exported too early from staying as it was, and one that was dropped from being lost."""
    records = simulate()
    store(migrated_url, records)
    options = {"what": "trades,book", "format_name": format_name, "pairs": PAIR}
    assert run_export(migrated_url, **options)[0] == 0
    later = simulate(seed=2, chain=50)
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("DELETE FROM kraken_trades")
    store(migrated_url, [record for record in later if record.pair != PAIR], segment=2)
    status, out, _ = run_export(migrated_url, **options)
    assert (status, "1 were finished already; 1 kept" in out) == (0, True)
    book = file_of(tmp_path / "out", "book", PAIR, DAYS[0], format_name)
    before = book.read_bytes()
    store(migrated_url, later, segment=3)
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", no_space)
        assert run_export(migrated_url, **options)[0] == 1
    assert book.read_bytes() == before, "a full disk costs no file that is there"
    assert run_export(migrated_url, **options)[0] == 0
    assert book.read_bytes() != before
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("DELETE FROM kraken_coverage")
        connection.execute("DELETE FROM kraken_orderbook")
    store(migrated_url, simulate(seed=3, chain=90, count=300), segment=4)
    kept = book.read_bytes()
    assert "kept that hold more" in run_export(migrated_url, **options)[1]
    assert book.read_bytes() == kept


@pytest.mark.parametrize("format_name", ["parquet", "csv", "jsonl"])
def test_other_content_is_left_alone(
    market_url: str, run_export: Callable[..., tuple[int, str, str]], tmp_path: Path, format_name: str
) -> None:
    """Prevents somebody's file from being overwritten, and files from being mixed that do not belong together."""
    path = file_of(tmp_path / "out", "candles", PAIRS[1], DAYS[1], format_name)
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    options = {"what": "trades,candles", "format_name": format_name}
    status, out, err = run_export(market_url, **options)
    assert (status, out, err.splitlines()[-1]) == (
        2,
        "",
        f"{path} is there already, and no export has written it: choose another folder by --out",
    )
    assert [each for each in (tmp_path / "out").rglob("*") if each.is_file()] == [path]
    path.unlink()
    assert run_export(market_url, **options)[0] == 0
    for more, told in (({"width": "1h"}, "width 60s"), ({"since": "2023-11-15T00:00:10"}, "since 2023-11-15T00:00:00")):
        status, _, err = run_export(market_url, **options | more)
        assert (status, "with other content" in err, told in err) == (2, True, True)


@pytest.mark.parametrize("format_name", ["parquet", "csv", "jsonl"])
def test_a_full_disk_leaves_nothing_half_written(
    market_url: str,
    run_export: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format_name: str,
) -> None:
    """Prevents a file that is cut off from being there under its name, and a traceback."""
    monkeypatch.setattr(files.os, "fsync", no_space)
    status, out, err = run_export(market_url, what="trades", format_name=format_name)
    assert (status, out) == (1, "")
    assert f"{format_name} cannot be written: {os.strerror(errno.ENOSPC)}" in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_disk_that_is_full_within_a_file(
    market_url: str, run_export: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a writer that fails in the middle from raising what nobody catches."""
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 1)
    path = file_of(tmp_path / "out", "trades", PAIR, DAYS[0], "parquet")
    path.parent.mkdir(parents=True)
    path.with_name(".trades.parquet.partial").symlink_to("/dev/full")
    status, _, err = run_export(market_url, what="trades")
    assert (status, os.strerror(errno.ENOSPC).lower() in err.lower()) == (1, True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]


def test_two_exports_do_not_share_a_folder(
    market_url: str, run_export: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Prevents two exports from writing into one temporary file."""
    (tmp_path / "out").mkdir()
    handle = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        status, _, err = run_export(market_url)
    finally:
        os.close(handle)
    assert (status, err.splitlines()[-1]) == (2, f"another export is writing to {tmp_path / 'out'}")


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        ({"format_name": "xls"}, 2, "--format: got 'xls'; it takes one of parquet, csv, jsonl"),
        ({"format_name": "csv,jsonl"}, 2, "--format: got 'csv,jsonl'; it takes one of"),
        ({"what": "trade"}, 2, "--what: got 'trade'; it takes a comma list of trades, book, candles, book-levels,"),
        ({"what": ""}, 2, "--what: got ''; it takes"),
        ({"pairs": "BTC/EUR"}, 2, "--pairs: got 'BTC/EUR', of which nothing is stored; stored are, for example: BTC"),
        ({"since": "yesterday"}, 2, "--since: got 'yesterday'; it takes a time such as"),
        ({"since": "2023-11-15", "until": "2023-11-15"}, 2, "--until: got '2023-11-15'; it takes a time after that"),
        ({"width": "7s"}, 2, "--width: got '7s'; it takes a part of a day"),
        ({"every": "often"}, 2, "--every: got 'often'; it takes a length of time"),
        ({"since": "2024-01-01"}, 1, "Nothing is stored from 2024-01-01 00:00:00 on; coverage goes from 2023-11-14"),
        ({"out": Path("/dev/null/out")}, 2, "/dev/null/out is a file, or lies in one; an export goes into a folder"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    market_url: str,
    run_export: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    options: dict,
    status: int,
    line: str,
) -> None:
    """Prevents a traceback, or a folder full of the wrong files, where the question is wrong."""
    found, out, err = run_export(market_url, **options)
    assert (found, out) == (status, "")
    assert err.splitlines()[-1].startswith(line)
    assert not (tmp_path / "out").exists()


def test_parquet_without_pyarrow_says_what_to_do(
    market_url: str, run_export: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a traceback where the optional package is not installed."""
    monkeypatch.setattr("collector.commands.export.find_spec", lambda _: None)
    assert run_export(market_url) == (
        2,
        "",
        "--format: parquet needs pyarrow, which is not installed: run pip install pyarrow, or take csv or jsonl\n",
    )
    assert importlib.util.find_spec("pyarrow")


def test_a_number_that_does_not_fit_is_told(
    migrated_url: str, run_export: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Prevents a rounded number in Parquet; CSV takes it."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO kraken_trades VALUES ('2026-01-01', 'BTC/USD', 0.1234567890123, 1, 'buy', 'limit', 1)"
        )
    status, out, err = run_export(migrated_url)
    assert (status, out) == (1, "")
    assert "a number has more digits than decimal(38, 12)" in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert run_export(migrated_url, format_name="csv")[0] == 0
    (path,) = tmp_path.rglob("trades.csv")
    assert path.read_text().splitlines()[1] == "2026-01-01T00:00:00.000000Z,0.1234567890123,1,buy,limit,1"


def test_missing_rows_are_found(migrated_url: str, run_export: Callable[..., tuple[int, str, str]]) -> None:
    """Prevents a damaged book from being exported as if it were whole, the second time too."""
    store(migrated_url, simulate())
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("DELETE FROM kraken_orderbook WHERE pair = %s AND seq = 20", [PAIR])
    for files_written in ("2", "1"):
        status, out, err = run_export(migrated_url, what="book")
        assert (status, out.partition(" ")[0]) == (1, files_written)
        assert "row seq 20 is missing, left out up to a snapshot" in err


@pytest.mark.parametrize("format_name", ["parquet", "csv", "jsonl"])
def test_a_time_without_trades_is_a_file_without_rows(
    migrated_url: str, run_export: Callable[..., tuple[int, str, str]], tmp_path: Path, format_name: str
) -> None:
    """Prevents "nothing happened" from looking like "nobody was watching"."""
    store(migrated_url, simulate())
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("DELETE FROM kraken_trades")
    status, out, _ = run_export(migrated_url, what="trades", format_name=format_name)
    assert (status, out.partition(",")[0]) == (0, "2 files written: 0 rows")
    path = file_of(tmp_path / "out", "trades", PAIR, DAYS[0], format_name)
    found = make_format(format_name).read_document(path)
    assert found is not None
    assert (len(found.coverage), found.rows) == (1, 0)
    assert run_export(migrated_url, what="trades", format_name=format_name)[1].count("2 were finished already") == 1


def test_rows_of_an_earlier_collector(
    database_url: str, run_export: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Prevents trades without an id from being left out, and books that nothing proves from being passed off."""
    with connect(database_url, application_name="tests") as connection:
        connection.execute("CREATE TABLE kraken_orderbook (event_time TIMESTAMP, pair TEXT, bids JSONB, asks JSONB)")
        connection.execute("INSERT INTO kraken_orderbook VALUES ('2024-01-01', 'BTC/USD', '[]', '[]')")
        migrate(connection)
        connection.execute("INSERT INTO kraken_trades VALUES ('2024-01-01', 'BTC/USD', 1.50, 2, 'buy', 'limit')")
        assert stored_csv.trade_times(connection, "BTC/USD") == (datetime(2024, 1, 1), datetime(2024, 1, 1))  # noqa: DTZ001 - as the tables have it
    status, out, err = run_export(database_url, what="trades,book", format_name="jsonl")
    assert (status, out.partition(":")[0]) == (0, "1 file written")
    assert "BTC/USD, book: not taken: 1 row of an earlier collector, which nothing proves" in err
    (path,) = tmp_path.rglob("trades.jsonl")
    assert json.loads(path.read_text(), parse_float=str)["price"] == "1.50"
    assert json.loads(path.read_text())["trade_id"] is None
