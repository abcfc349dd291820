"""The screen of `status`: whole at 80 columns, and what it says is what the document says."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from rich.console import Console

from collector.commands.status_document import (
    AuditResult,
    CollectorStatus,
    Document,
    PairStatus,
    Rows,
    SpoolStatus,
    Unwatched,
)
from collector.commands.status_report import (
    COLLECTORS_SHOWN,
    GAPS_SHOWN,
    OPEN_GAPS_SHOWN,
    PAIRS_SHOWN,
    print_status,
    status_json,
)
from collector.storage.backlog import Backlog

NOW = datetime(2026, 8, 24, 12, tzinfo=UTC)


def pair_status(pair: str = "BTC/USD", **more: object) -> PairStatus:
    values = {
        "stale": False,
        "last_trade_at": NOW,
        "last_trade_age": 0.4,
        "last_price": msgspec.Raw(b"63000.10"),
        "trades_age": 1.0,
        "book_age": 1.0,
        "rows": Rows(940, 4321, 26_400_000),
        "coverage": 0.99999,
        "cells": [None] * 10 + [0.0, 0.001, 0.5, 0.999] + [1.0] * 10,
        "missing_trades": 0,
        "checksum_failures": 0,
        "audit": None,
    }
    return PairStatus(pair, **(values | more))


def document(*pairs: PairStatus, **more: object) -> Document:
    values = {
        "at": NOW,
        "origin": "ws.kraken.com",
        "stale": not pairs or any(pair.stale for pair in pairs),
        "stale_after": 60.5,
        "pairs": list(pairs),
        "collectors": [],
        "open_gaps": [],
        "gaps": [],
        "spools": [SpoolStatus("0ab59d71-38eb-4c21-9335-d57fff22e4d0", 1234, NOW, 0.5)],
        "backlog": Backlog(".spool", 1, 144, {}),
        "bytes": 12_300_000_000,
        "bytes_a_day": 1_200_000_000,
        "former_pairs": [],
    }
    return Document(**(values | more))


def collector_status(name: str = "f3b0c1d2-58a4-4ef1-9c0d-1a2b3c4d5e6f:4", **more: object) -> CollectorStatus:
    values = {
        "available": True,
        "pairs": [f"P{number}/USDT" for number in range(1200)],
        "rows_per_second": 12_345,
        "waiting_rows": 67,
        "started_at": NOW - timedelta(hours=3),
        "age": 10_800.0,
    }
    return CollectorStatus(name, **(values | more))


def shown(told: Document, width: int = 80) -> str:
    console = Console(width=width, highlight=False, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        print_status(told, console)
    return capture.get()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_screen_is_wide_enough(width: int) -> None:
    """Prevents a line that breaks on a terminal of the usual width, and with it a table that nobody can read."""
    audit = AuditResult(NOW - timedelta(minutes=11), passed=True, differences=0, failed=0)
    told = document(pair_status(audit=audit), pair_status("DOGE/USDT", stale=True, last_price=msgspec.Raw(b"0.0724")))
    lines = shown(told, width).splitlines()
    assert max(map(len, lines)) <= width
    (day,) = [line for line in lines if line.startswith("BTC/USD") and "99.99%" in line]
    assert day.split()[-3:] == ["ok", "11", "min"]
    assert "          ·▁▄▇██████████" in day
    (now,) = [line for line in lines if line.startswith("BTC/USD") and "63000.10" in line]
    assert now.split() == ["BTC/USD", "0.4", "s", "63000.10", "1.0", "s", "940", "4.3k", "26M"]


def test_verdict_stands_last() -> None:
    """Prevents a person from having to read it all to know whether anything is wrong."""
    assert shown(document(pair_status())).splitlines()[-1] == "Well: 1 pair up to date."
    stale = shown(document(pair_status(), pair_status("ETH/USD", stale=True)))
    assert stale.splitlines()[-1] == "STALE: nothing for more than 60.5 s of ETH/USD."
    assert shown(document()).splitlines()[-1] == "STALE: nothing has been collected yet."


def test_everything_that_is_wrong_is_said() -> None:
    """Prevents a gap, an audit, rejected rows or a backlog from being known to the document alone."""
    failed = AuditResult(NOW - timedelta(hours=3), passed=False, differences=2, failed=1)
    gap = Unwatched("BTC/USD", "book", NOW - timedelta(hours=1), NOW, "closed_1012", 3600.0)
    told = shown(
        document(
            pair_status(audit=failed, missing_trades=12, checksum_failures=3),
            open_gaps=[
                msgspec.structs.replace(gap, until=None, reason=None),
                Unwatched("SOL/USD", "trade", None, None, "never_watched", None),
            ],
            gaps=[gap],
            backlog=Backlog(".spool", 31, 5_000_000, {"rejected": 1}),
            former_pairs=["LTC/USD"],
        )
    )
    for line in (
        "BTC/USD book: an audit 3 h ago found 2 levels wrong; kraken_audits has them.",
        "BTC/USD book: not watched since 08-24 11:00:00 (60 min): nobody told why",
        "SOL/USD trade: has never been watched.",
        "  08-24 11:00:00 BTC/USD book for 60 min: closed_1012",
        "Spool 0ab59d71: last shipped 0.5 s ago (segment 1,234).",
        "Spool folder .spool: 31 segments, 5.0 MB.",
        "Set apart in .spool/rejected: 1 file.",
        "Database: 12.3 GB, growing by 1.2 GB a day.",
        "Stored, but not collected now: LTC/USD.",
    ):
        assert f"\n{line}" in told
    (day,) = [line for line in told.splitlines() if line.startswith("BTC/USD") and "99.99%" in line]
    assert day.split()[-4:] == ["2", "12", "3", "FAILED"]


def test_many_gaps_are_summed_up() -> None:
    """Prevents an outage of many pairs from pushing everything else off the screen."""
    gap = Unwatched("BTC/USD", "book", NOW, NOW, "silent", 11.0)
    lines = shown(document(pair_status(), open_gaps=[gap] * 20, gaps=[gap] * 20)).splitlines()
    assert sum("not watched since" in line for line in lines) == OPEN_GAPS_SHOWN
    assert sum("for 11 s: silent" in line for line in lines) == GAPS_SHOWN
    assert f"and {20 - OPEN_GAPS_SHOWN} more that are not watched; --json tells all" in lines


def test_many_pairs_fit_on_a_screen() -> None:
    """Prevents the one pair of a thousand that is stale, or wrong, from being off the screen."""
    failed = AuditResult(NOW, passed=False, differences=2, failed=1)
    wrong = [
        pair_status("ZEC/USD", stale=True),
        pair_status("YFI/USD", audit=failed),
        pair_status("XTZ/USD", missing_trades=1),
        pair_status("WIF/USD", coverage=0.5),
    ]
    well = [pair_status(f"P{number}/USD", coverage=1.0) for number in range(1000)]
    lines = shown(document(*well, *wrong)).splitlines()
    for pair in wrong:
        assert sum(line.startswith(f"{pair.pair} ") for line in lines) >= 2
    assert sum(line.startswith("P") for line in lines) == 2 * (PAIRS_SHOWN - len(wrong) + 1), "and two headings"
    assert f"and {1004 - PAIRS_SHOWN:,} more pairs, none of them worse; --json tells all" in lines
    assert lines[-1].startswith("STALE")


@pytest.mark.parametrize("width", [80, 120])
def test_collectors_are_shown(width: int) -> None:
    """Prevents the one that stands by, or that is cut off, from passing for one that collects, and a broken table."""
    told = document(
        pair_status(),
        collectors=[
            collector_status(),
            collector_status("other:9", pairs=[]),
            collector_status("third:1", pairs=["BTC/USD"], available=False, age=4.0),
        ],
    )
    lines = shown(told, width).splitlines()
    assert max(map(len, lines)) <= width
    words = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    (first,) = [rest for start, rest in words.items() if start.startswith("f3b0c1d2")]
    assert first[:2] == ["1,200:", "P0/USDT,"]
    assert words["other:9"] == ["stands", "by", "12k", "67", "3", "h"]
    assert words["third:1"][:7] == ["1:", "BTC/USD", "12k", "67", "4.0", "s", "unavailable"]


def test_many_collectors_fit_on_a_screen() -> None:
    """Prevents the one of many collectors that falls behind, or is cut off, from being off the screen."""
    well = [collector_status(f"host:{number}") for number in range(COLLECTORS_SHOWN + 3)]
    behind = collector_status("slow:1", waiting_rows=10_000)
    out = collector_status("out:1", available=False)
    lines = shown(document(pair_status(), collectors=[*well, behind, out])).splitlines()
    assert sum(line.startswith("host:") for line in lines) == COLLECTORS_SHOWN - 2
    assert any(line.startswith("slow:1 ") for line in lines)
    assert any(line.startswith("out:1 ") for line in lines)
    assert "and 5 more collectors; --json tells all" in [line.strip() for line in lines]


def test_json_has_every_digit_and_zones() -> None:
    """Prevents a program from being told a rounded price, or a time of an unknown zone."""
    text = status_json(document(pair_status(last_price=msgspec.Raw(b"0.00000010"))))
    assert '"last_price":0.00000010' in text
    read = msgspec.json.decode(text)
    assert read["at"] == "2026-08-24T12:00:00Z"
    assert set(read) == set(Document.__struct_fields__)
