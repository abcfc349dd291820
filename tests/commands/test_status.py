"""The `status` command beside a real collector: well while it runs, stale when it is gone, one line otherwise."""

import json
import os
import random
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
import trio
from collecting import collecting, open_kraken, open_market, settings_for, wait_until

from collector.commands import status_document
from collector.commands.status import status
from collector.settings import Settings

PAIRS = "BTC/USD,ETH/USD"


def point_at(monkeypatch: pytest.MonkeyPatch, settings: Settings, pairs: str | None) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("SPOOL_DIR", str(settings.spool_dir))
    if pairs is not None:
        monkeypatch.setenv("PAIRS", pairs)


async def test_running_and_stopped(
    migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a health check from failing while all is well, and from passing when the collector is gone."""

    async def told(as_json: bool) -> tuple[int, str]:
        capsys.readouterr()
        found = await trio.to_thread.run_sync(lambda: status(as_json=as_json))
        return found, capsys.readouterr().out

    async with open_market(["BTC/USD", "ETH/USD"]) as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path / "spool", pairs=PAIRS)
        point_at(monkeypatch, settings, None)
        assert (await told(as_json=False))[0] == 1, "nothing is collected yet"
        async with collecting(settings) as collector:
            await wait_until(lambda: collector.statistics.stored_rows > 500)
            found, out = await told(as_json=True)
            document = json.loads(out)
            assert (found, document["stale"], document["open_gaps"]) == (0, False, [])
            assert [pair["pair"] for pair in document["pairs"]] == PAIRS.split(",")
            stored = collector.statistics.stored_rows
            assert 500 < sum(pair["rows"]["day"] for pair in document["pairs"]) <= stored
            assert all(pair["coverage"] == 1.0 and pair["book_age"] < 30 for pair in document["pairs"])
            assert document["backlog"]["directory"] == str(settings.spool_dir)
            assert document["origin"] == "localhost"
            (member,) = document["collectors"]
            assert (member["pairs"], member["available"]) == (PAIRS.split(","), True)
            assert member["name"].endswith(f":{os.getpid()}")
            assert 0 <= member["age"] < 60
            found, out = await told(as_json=False)
            assert (found, out.splitlines()[-1]) == (0, "Well: 2 pairs up to date.")
    monkeypatch.setattr(status_document, "STALE_AFTER", -status_document.STALE_AFTER)
    found, out = await told(as_json=False)
    assert (found, out.splitlines()[-1].partition(":")[0]) == (1, "STALE")
    assert "BTC/USD book: not watched since" in out
    assert ": shutdown." in out


def test_gaps_are_those_of_the_view(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents two answers to the question what was not watched: runs of the last days, of any order and overlap."""
    chance = random.Random(4)
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        for pair in range(8):
            for chain in range(chance.randrange(1, 25)):
                since, length = chance.randrange(60), chance.randrange(12)
                connection.execute(
                    "INSERT INTO kraken_coverage SELECT %s, 'book', %s, start, start + %s * interval '1 hour', 0, 0,"
                    " start + %s * interval '1 hour', %s, gen_random_uuid()"
                    " FROM (SELECT timezone('UTC', now()) - %s * interval '1 hour' AS start) AS began",
                    [f"P{pair}/USD", chain, length, length, f"reason_{chain}", since + 0.5 + chain / 1000],
                )
        expected = connection.execute(
            """
            SELECT pair, channel, started_at AT TIME ZONE 'UTC', reason FROM kraken_gaps
            WHERE ended_at > timezone('UTC', now()) - interval '1 day' ORDER BY ended_at DESC, pair DESC
            """
        ).fetchall()
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("PAIRS", ",".join(f"P{pair}/USD" for pair in range(8)))
    assert status(as_json=True) == 1
    gaps = json.loads(capsys.readouterr().out)["gaps"]
    told = [(gap["pair"], gap["channel"], datetime.fromisoformat(gap["since"]), gap["reason"]) for gap in gaps]
    assert told == expected
    assert len(expected) > 10


def test_pairs_that_were_asked_for(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a pair that should be collected, and is not, from being left out."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO kraken_coverage SELECT 'BTC/USD', channel, 1, timezone('UTC', now()), timezone('UTC', now()),"
            " 0, 0, NULL, NULL, gen_random_uuid() FROM unnest(ARRAY['book', 'trade']) AS channel"
        )
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    assert status() == 0
    monkeypatch.setenv("PAIRS", "SOL/USD")
    assert status() == 1
    out = capsys.readouterr().out
    assert "SOL/USD book: has never been watched." in out
    assert "Stored, but not collected now: BTC/USD." in out


@pytest.mark.parametrize(
    ("url", "line"),
    [
        (None, "DATABASE_URL: it is not set"),
        ("postgresql://postgres:secret@127.0.0.1:1/nowhere", "The database cannot be reached: "),
        ("postgresql://u:p@ss@host/d", "DATABASE_URL is no address"),
    ],
)
def test_what_cannot_be_told_is_one_clear_line(
    url: str | None, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents an unreachable database from passing for a stale collector, or from being told by a traceback."""
    if url is not None:
        monkeypatch.setenv("DATABASE_URL", url)
    assert status() == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), "secret" in err) == ("", 1, False)
    assert err.startswith(line)


def test_database_without_the_schema_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """Prevents a database that was never migrated from being told as a fault of SQL."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert status() == 2
    assert capsys.readouterr().err == "the database has not got this collector's schema: run its migrate command\n"
