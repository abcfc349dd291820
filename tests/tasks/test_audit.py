"""The deep audit, of a collector against a Kraken that withholds what no checksum shows."""

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import structlog
from collecting import collecting, open_kraken, settings_for, wait_until

from collector.kraken.messages import BookMessage, Decoder
from collector.kraken.simulator.simulation import open_simulation
from collector.pipeline import utc_now
from collector.rows import BookRows
from collector.tasks import audit

PAIR = "BTC/USD"
DEPTH = 1000
DEEP = 500  # levels of each side that lie above what is withheld


def audits(database_url: str) -> list[tuple[bool, list[dict[str, str | None]]]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT passed, differences FROM kraken_audits ORDER BY audited_at").fetchall()


def withhold_deep(rows: BookRows, withheld: list[bytes]) -> Callable[[bytes], list[bytes] | None]:
    """An alteration that leaves out an update of which every entry lies below the 500 best levels of its side."""
    bid, ask = (side.best(DEPTH)[DEEP].rank for side in (rows.book.bids, rows.book.asks))

    def alter(frame: bytes) -> list[bytes] | None:
        (message,) = Decoder(utc_now).decode(frame.decode())
        assert isinstance(message, BookMessage)
        is_deep = all(level.rank < bid for level in message.bids) and all(level.rank > ask for level in message.asks)
        if message.type == "snapshot" or not is_deep:
            return None
        withheld.append(frame)
        return []

    return alter


async def test_a_healthy_book_passes(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents an audit that finds fault with a book only because its two connections are not in step."""
    monkeypatch.setattr(audit, "SETTLE_INTERVAL", 0.05)
    async with open_simulation([PAIR], seed=3, rate=200) as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path, book_depth=DEPTH)
        async with collecting(settings.model_copy(update={"audit_interval": 0.5})) as collector:
            await wait_until(lambda: len(audits(migrated_url)) >= 3)
            assert not collector.statistics.desyncs
    assert all(passed and not differences for passed, differences in audits(migrated_url))


async def test_a_withheld_deep_level_is_found(
    migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a level far below the checksum from being wrong for months without anybody knowing."""
    monkeypatch.setattr(audit, "SETTLE_INTERVAL", 0.05)
    monkeypatch.setattr(audit, "SETTLE_TIMEOUT", 0.5)
    async with open_simulation([PAIR], seed=3, rate=500) as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path, book_depth=DEPTH)
        async with collecting(settings.model_copy(update={"audit_interval": 0.5})) as collector:
            await wait_until(lambda: collector._books is not None and bool(collector._books.held()))
            (rows,) = collector._books.held()
            assert rows.run is not None
            chain, withheld = rows.run.chain, []
            kraken.faults.alter_frames("book", PAIR, withhold_deep(rows, withheld))
            await wait_until(lambda: collector.statistics.desyncs["audit"] == 1)
            await wait_until(lambda: [passed for passed, _ in audits(migrated_url)][-2:] == [False, True])
            assert collector.statistics.connections == 1
            assert collector.statistics.desyncs.total() == 1
    (differences,) = [differences for passed, differences in audits(migrated_url) if not passed]
    entries = {entry["price"] for side in ("bids", "asks") for entry in book_of(withheld[0])[side]}
    assert {difference["price"] for difference in differences} & entries
    with psycopg.connect(migrated_url) as connection:
        run = connection.execute(
            "SELECT end_reason, suspect_since <= ended_at FROM kraken_coverage WHERE channel = 'book' AND chain = %s",
            [chain],
        ).fetchone()
    assert run == ("audit", True)


async def test_an_audit_during_a_storm_of_updates_is_given_up(
    migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a book of which not all states were kept from being called wrong, and its pair from being resynced."""
    monkeypatch.setattr(audit, "SETTLE_INTERVAL", 0.05)
    monkeypatch.setattr("collector.book_window.MAX_WINDOW", 2)
    async with open_simulation([PAIR], seed=3, rate=500) as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path, book_depth=DEPTH)
        with structlog.testing.capture_logs() as logs:
            async with collecting(settings.model_copy(update={"audit_interval": 0.2})) as collector:
                await wait_until(lambda: collector._books is not None and bool(collector._books.held()))
                (rows,) = collector._books.held()
                kraken.faults.alter_frames("book", PAIR, withhold_deep(rows, []))
                await wait_until(lambda: [entry["event"] for entry in logs].count("audit_given_up") >= 2)
                assert not collector.statistics.desyncs
    assert all(passed for passed, _ in audits(migrated_url))


def book_of(frame: bytes) -> dict[str, list[dict[str, str]]]:
    return json.loads(frame, parse_float=str, parse_int=str)["data"][0]
