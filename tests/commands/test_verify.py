"""`verify` accuses no store that is as it should be, and tells every damage with its place and an exit status."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psycopg
import pytest
from simulated_store import PAIRS, records_of, simulate, store

from collector.commands.verify import verify
from collector.records import BookRow
from collector.storage.database import connect
from collector.storage.migrations import migrate
from collector.storage.retention import drop_day

SEEDS = (1, 2, 3)


@dataclass
class Verified:
    status: int
    out: str
    err: str

    @property
    def document(self) -> dict:
        return json.loads(self.out)

    @property
    def found(self) -> set[tuple[str, int | None, int | None]]:
        return {(found["kind"], found["chain"], found["seq"]) for found in self.document["findings"]}


@pytest.fixture
def run_verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Verified]:
    def run(url: str, *arguments: str | None, as_json: bool = True) -> Verified:
        monkeypatch.setenv("DATABASE_URL", url)
        status = verify(*arguments, as_json=as_json)
        captured = capsys.readouterr()
        return Verified(status, captured.out, captured.err)

    return run


def execute(url: str, statement: str, *arguments: object) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(statement, arguments).rowcount, statement


@pytest.mark.parametrize("depth", [10, 1000])
def test_what_the_collector_stores_is_right(depth: int, migrated_url: str, run_verify: Callable[..., Verified]) -> None:
    """Prevents a false alarm, in the document and in the words for a person."""
    records = simulate(depth=depth)
    store(migrated_url, records)
    verified = run_verify(migrated_url)
    assert (verified.status, verified.document["ok"], verified.found) == (0, True, set())
    tallies = verified.document["pairs"]
    assert [tally["pair"] for tally in tallies] == sorted(PAIRS)
    assert sum(tally["book_rows"] for tally in tallies) == sum(isinstance(record, BookRow) for record in records)
    assert [tally["chains"] for tally in tallies] == [1, 1]
    assert all(tally["trades"] > 10 for tally in tallies)
    verified = run_verify(migrated_url, as_json=False)
    assert verified.out.rstrip().endswith("Nothing is wrong.")
    assert verified.err == ""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("depth", [10, 1000])
def test_damage_is_found_where_it_is(
    depth: int, seed: int, migrated_url: str, run_verify: Callable[..., Verified]
) -> None:
    """Prevents a lost, repeated or changed row, a lost trade or a changed count from passing unseen."""
    records = simulate(depth=depth)
    store(migrated_url, records)
    chance = random.Random(seed)
    btc, eth = (
        [row for row in records if isinstance(row, BookRow) and row.pair == pair] for pair in ("BTC/USD", "ETH/USD")
    )
    place = "pair = %s AND chain = %s AND seq = %s"
    # A snapshot, Kraken's own or a later one, whose best bid becomes larger in its last digit.
    changed = next(row for row in btc[chance.randrange(300) :] if row.type == "snapshot" or row.seq == 0)
    repeated = chance.choice(btc)
    lost = chance.choice(eth)
    key = (changed.pair, changed.chain, changed.seq)
    size = "jsonb_set(bids, '{0,1}', to_jsonb((bids->0->>1)::numeric + 0.00000001))"
    execute(migrated_url, f"UPDATE kraken_orderbook SET bids = {size} WHERE {place}", *key)
    execute(
        migrated_url,
        f"INSERT INTO kraken_orderbook SELECT * FROM kraken_orderbook WHERE {place}",
        *(repeated.pair, repeated.chain, repeated.seq),
    )
    execute(migrated_url, f"DELETE FROM kraken_orderbook WHERE {place}", lost.pair, lost.chain, lost.seq)
    with psycopg.connect(migrated_url) as connection:
        ids = [number for (number,) in connection.execute("SELECT trade_id FROM kraken_trades WHERE pair = 'ETH/USD'")]
    hole = chance.choice(sorted(ids)[1:-4])
    execute(
        migrated_url, "DELETE FROM kraken_trades WHERE pair = 'ETH/USD' AND trade_id BETWEEN %s AND %s", hole, hole + 2
    )
    verified = run_verify(migrated_url)
    assert verified.status == 1
    wrong_level = {("checksum", *key[1:]), ("checkpoint", *key[1:])}
    lost_row = {("seq_hole", lost.chain, lost.seq), ("coverage", lost.chain, lost.seq)}
    assert verified.found & wrong_level
    assert verified.found & lost_row
    assert ("seq_repeat", repeated.chain, repeated.seq) in verified.found
    assert ("trade_hole", None, hole) in verified.found
    tallies = {tally["pair"]: tally for tally in verified.document["pairs"]}
    assert tallies["ETH/USD"]["missing_trades"] == 3
    assert all(found["time"] for found in verified.document["findings"])
    execute(migrated_url, "INSERT INTO kraken_absent_trades VALUES ('ETH/USD', %s, %s)", hole, hole + 2)
    assert ("trade_hole", None, hole) not in run_verify(migrated_url).found
    words = run_verify(migrated_url, as_json=False).out
    assert f"seq_repeat: BTC/USD chain {repeated.chain} seq {repeated.seq} at 2023-11-14 " in words


def test_coverage_is_held_against_the_rows(migrated_url: str, run_verify: Callable[..., Verified]) -> None:
    """Prevents counts, runs and rows that contradict each other from passing."""
    store(migrated_url, simulate())
    chain = next(row.chain for row in simulate() if isinstance(row, BookRow))
    for column in ("rows", "updates"):
        for change in (1, -1):
            where = f"WHERE channel = 'book' AND chain = {chain}"
            execute(migrated_url, f"UPDATE kraken_coverage SET {column} = {column} + {change} {where}")
            assert {found[:2] for found in run_verify(migrated_url).found} == {("coverage", chain)}
            execute(migrated_url, f"UPDATE kraken_coverage SET {column} = {column} - {change} {where}")
    assert run_verify(migrated_url).status == 0
    execute(migrated_url, f"DELETE FROM kraken_coverage WHERE channel = 'book' AND chain = {chain}")
    assert {found[:2] for found in run_verify(migrated_url).found} == {("rows_without_coverage", chain)}
    execute(migrated_url, f"DELETE FROM kraken_orderbook WHERE chain = {chain}")
    assert run_verify(migrated_url).status == 0


def test_run_that_failed_an_audit_is_told(migrated_url: str, run_verify: Callable[..., Verified]) -> None:
    """Prevents an audit that failed from having no consequence."""
    store(migrated_url, simulate())
    chain = next(row.chain for row in simulate() if isinstance(row, BookRow))
    middle = "started_at + (last_at - started_at) / 2"
    execute(migrated_url, f"UPDATE kraken_coverage SET suspect_since = {middle} WHERE chain = %s", chain)
    verified = run_verify(migrated_url)
    assert (verified.status, verified.found) == (1, {("suspect", chain, None)})
    words = run_verify(migrated_url, as_json=False)
    assert words.status == 1
    assert f" chain {chain} at 2023-11-14 " in words.out
    assert words.out.endswith("\n1 finding.\n")


def test_report_to_a_file_is_in_whole_lines(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, run_verify: Callable[..., Verified]
) -> None:
    """Prevents a narrow width, which no file has, from breaking headings and numbers in two."""
    monkeypatch.setenv("COLUMNS", "20")
    store(migrated_url, simulate())
    lines = [line.split() for line in run_verify(migrated_url, as_json=False).out.splitlines()]
    assert ["Pair", "Rows", "Wrong", "Chains", "Suspect", "Coverage", "Can't", "verify"] in lines
    assert [line[0] for line in lines if len(line) > 5] == ["Pair", *PAIRS, "Pair", *PAIRS]


def test_parts_of_a_chain_are_verified_from_the_snapshot_before(
    migrated_url: str, run_verify: Callable[..., Verified]
) -> None:
    """Prevents a range in the middle of a chain from being called wrong, or from being verified by nothing."""
    records = simulate()
    store(migrated_url, records)
    rows = [row for row in records if isinstance(row, BookRow)]
    chance = random.Random(5)
    for _ in range(8):
        since, until = sorted(row.event_time for row in chance.sample(rows, 2))
        inside = [row for row in rows if since <= row.event_time < until]
        verified = run_verify(migrated_url, None, since, until)
        assert (verified.status, verified.found) == (0, set())
        assert sum(tally["book_rows"] for tally in verified.document["pairs"]) == len(inside)
        since_alone = run_verify(migrated_url, "BTC/USD", since)
        assert (since_alone.status, since_alone.found) == (0, set())
        assert [tally["pair"] for tally in since_alone.document["pairs"]] == ["BTC/USD"]
    lost = rows[len(rows) // 2]
    key = "pair = %s AND chain = %s AND seq = %s"
    execute(migrated_url, f"DELETE FROM kraken_orderbook WHERE {key}", lost.pair, lost.chain, lost.seq)
    around = rows[len(rows) // 2 - 200].event_time, rows[len(rows) // 2 + 200].event_time
    assert ("seq_hole", lost.chain, lost.seq) in run_verify(migrated_url, None, *around).found


def test_runs_that_are_still_written_are_right_so_far(migrated_url: str, run_verify: Callable[..., Verified]) -> None:
    """Prevents a running collector's open runs from being called wrong."""
    store(migrated_url, simulate(end=None))
    assert run_verify(migrated_url).status == 0
    chain = next(row.chain for row in simulate() if isinstance(row, BookRow))
    last = max(row.seq for row in simulate() if isinstance(row, BookRow) and row.chain == chain)
    execute(migrated_url, "DELETE FROM kraken_orderbook WHERE chain = %s AND seq = %s", chain, last)
    assert run_verify(migrated_url).found == {("coverage", chain, last)}


def test_dropped_days_are_not_missing(migrated_url: str, run_verify: Callable[..., Verified]) -> None:
    """Prevents retention from looking like a loss of rows."""
    store(migrated_url, simulate())
    assert run_verify(migrated_url).status == 0
    with connect(migrated_url, application_name="tests") as connection:
        assert connection.execute("SELECT count(DISTINCT event_time::date) FROM kraken_orderbook").fetchone() == (1,)
        assert drop_day(connection, date(2023, 11, 14))
    verified = run_verify(migrated_url)
    assert (verified.status, verified.found) == (0, set())
    assert sum(tally["book_rows"] for tally in verified.document["pairs"]) == 0


def test_rows_of_an_earlier_collector_are_not_wrong(database_url: str, run_verify: Callable[..., Verified]) -> None:
    """Prevents adopted rows, of which nothing can be said, from being called wrong, or right."""
    with connect(database_url, application_name="tests") as connection:
        connection.execute("CREATE TABLE kraken_orderbook (event_time TIMESTAMP, pair TEXT, bids JSONB, asks JSONB)")
        connection.execute("INSERT INTO kraken_orderbook VALUES ('2022-01-01', 'BTC/USD', '[]', '[]')")
        connection.execute(
            "CREATE TABLE kraken_trades (event_time TIMESTAMP, pair TEXT, price NUMERIC, volume NUMERIC,"
            " side TEXT, order_type TEXT)"
        )
        connection.execute("INSERT INTO kraken_trades VALUES ('2022-01-01', 'BTC/USD', 1, 1, 'buy', 'limit')")
        migrate(connection)
    store(database_url, simulate())
    verified = run_verify(database_url)
    assert (verified.status, verified.found) == (0, set())
    tally = verified.document["pairs"][0]
    assert (tally["unverifiable_book_rows"], tally["unverifiable_trades"]) == (1, 1)


@pytest.mark.parametrize("depth", [10, 1000])
def test_recordings_are_right(
    depth: int, recordings: Path, migrated_url: str, run_verify: Callable[..., Verified]
) -> None:
    """Prevents a rule that real books do not follow."""
    for number, path in enumerate(sorted(recordings.glob(f"*depth{depth}_*.ndjson")), 1):
        frames = path.read_bytes().splitlines()
        pairs = sorted({data["symbol"] for data in books(frames)})
        store(migrated_url, records_of(frames, pairs, depth, chain=1000 * number), number)
    verified = run_verify(migrated_url)
    assert (verified.status, verified.found) == (0, set())
    assert sum(tally["book_rows"] for tally in verified.document["pairs"]) >= 1490


def books(frames: list[bytes]) -> list[dict]:
    messages = [json.loads(frame) for frame in frames]
    return [data for message in messages if message.get("channel") == "book" for data in message["data"]]


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ((None, "yesterday"), 2, "--since: got 'yesterday'; it takes a time such as"),
        ((None, None, "2026-13-01"), 2, "--until: got '2026-13-01'; it takes a time such as"),
        ((None, "1999-01-01"), 2, "--since: got '1999-01-01'; it takes a time from 2013 on"),
        ((None, "2024-01-02", "2024-01-02"), 2, "--until: got '2024-01-02'; it takes a time after that of --since"),
        (("bitcoin",), 2, "--pairs: got 'bitcoin'; it takes a comma list of symbols"),
        (("BTC/EUR",), 2, "--pairs: got 'BTC/EUR', of which nothing is stored; stored are, for example: BTC/USD"),
        ((None, "2015-01-01", "2015-01-02"), 1, "Nothing is stored from 2015-01-01 00:00:00 up to 2015-01-02"),
        (
            (None, "2030-01-01"),
            1,
            "Nothing is stored from 2030-01-01 00:00:00 on; coverage goes from 2023-11-14 22:13:20",
        ),
    ],
)
def test_wrong_usage_is_one_clear_line(
    arguments: tuple[str | None, ...], status: int, line: str, migrated_url: str, run_verify: Callable[..., Verified]
) -> None:
    """Prevents a typing error from ending in a traceback, or in a report that says that nothing is wrong."""
    store(migrated_url, simulate(count=300))
    verified = run_verify(migrated_url, *arguments)
    assert (verified.status, verified.out) == (status, "")
    assert line in verified.err
    assert verified.err.count("\n") == 1


def test_database_that_cannot_be_used_is_one_clear_line(
    database_url: str, migrated_url: str, run_verify: Callable[..., Verified]
) -> None:
    """Prevents a traceback where there is no database, no schema, no row, or no setting."""
    for url, status, line in (
        ("postgresql://postgres@127.0.0.1:1/none", 1, "The database cannot be reached"),
        (database_url, 2, "migrate"),
        (migrated_url, 1, "Nothing is stored yet"),
        ("mysql://somewhere", 2, "DATABASE_URL"),
    ):
        verified = run_verify(url)
        assert (verified.status, verified.out) == (status, "")
        assert line in verified.err
        assert verified.err.count("\n") == 1
