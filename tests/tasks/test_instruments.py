"""What PAIRS=* collects follows the exchange's own list, as it changes."""

from pathlib import Path

import psycopg
from collecting import Kraken, collecting, count, open_kraken, open_market, settings_for, wait_until
from structlog.testing import capture_logs

from collector.kraken.messages import InstrumentMessage
from collector.kraken.pairs import Instrument
from collector.kraken.server.messages import instrument_snapshot
from collector.pipeline import Collector
from collector.tasks.instruments import Listing

PAIRS = ("BTC/USD", "ETH/USD", "SOL/USD", "ETH/BTC")
DELISTED_RUNS = "SELECT count(*) FROM kraken_coverage WHERE end_reason = 'delisted'"
IN_USD = {"BTC/USD", "ETH/USD", "SOL/USD"}


def tell(kraken: Kraken, *instruments: Instrument) -> None:
    """Let the exchange tell a change of its list."""
    change = instrument_snapshot({instrument.symbol: instrument for instrument in instruments})
    kraken.faults.send(change.replace(b'"snapshot"', b'"update"'))


def collected_by(collector: Collector) -> frozenset[str]:
    return frozenset() if collector._books is None else collector._books.collected()


async def test_the_list_is_followed(migrated_url: str, tmp_path: Path) -> None:
    """Prevents a new pair from being missed until the next start, and a delisted one from looking watched."""
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        tellable = market.instruments["SOL/USD"]
        async with collecting(settings_for(kraken, migrated_url, tmp_path, pairs="*/USD")) as collector:
            await wait_until(lambda: collected_by(collector) == IN_USD)
            tell(kraken, Instrument("SOL/USD", tellable.price_precision, tellable.qty_precision, "delisted"))
            await wait_until(lambda: count(migrated_url, DELISTED_RUNS) == 2)
            assert collected_by(collector) == IN_USD - {"SOL/USD"}
            tell(kraken, Instrument("SOL/USD", tellable.price_precision, tellable.qty_precision, "post_only"))
            await wait_until(lambda: collected_by(collector) == IN_USD)
    with psycopg.connect(migrated_url) as connection:
        ends = connection.execute("SELECT DISTINCT pair, end_reason FROM kraken_coverage").fetchall()
    assert sorted(ends) == sorted([("SOL/USD", "delisted"), *((pair, "shutdown") for pair in IN_USD)])


async def test_a_book_begins_anew_when_its_digits_change(migrated_url: str, tmp_path: Path) -> None:
    """Prevents one run from holding prices of two precisions, which no checksum can tell apart."""
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        with capture_logs() as logs:
            async with collecting(settings_for(kraken, migrated_url, tmp_path, pairs="*/USD")) as collector:
                await wait_until(lambda: collected_by(collector) == IN_USD)
                tell(kraken, Instrument("ETH/USD", 7, 8))
                await wait_until(lambda: any(log["event"] == "book_desync" for log in logs))
                await wait_until(lambda: collected_by(collector) == IN_USD)
    (desync,) = [log for log in logs if log["event"] == "book_desync"]
    assert (desync["pair"], desync["reason"]) == ("ETH/USD", "precision_changed")


async def test_a_lost_list_gives_no_pair_up(migrated_url: str, tmp_path: Path) -> None:
    """Prevents an outage of the list from ending what is collected."""
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        with capture_logs() as logs:
            async with collecting(settings_for(kraken, migrated_url, tmp_path, pairs="*/USD")) as collector:
                await wait_until(lambda: collected_by(collector) == IN_USD)
                kraken.faults.close(1012)
                await wait_until(lambda: any(log["event"] == "instruments_out_of_reach" for log in logs))
                await wait_until(lambda: collected_by(collector) == IN_USD)
    assert not [log for log in logs if log["event"] == "pairs_yielded"]


def test_changes_are_merged_and_a_snapshot_replaces() -> None:
    """Prevents pairs that an update does not name from vanishing, and those that a new list lacks from staying."""
    listing = Listing()
    assert listing.take(InstrumentMessage("snapshot", [Instrument("A/USD", 1, 8), Instrument("B/USD", 2, 8)])) == []
    assert listing.take(InstrumentMessage("update", [Instrument("C/USD", 1, 8, "work_in_progress")])) == []
    assert listing.pairs == ["A/USD", "B/USD"]
    assert listing.take(InstrumentMessage("update", [Instrument("B/USD", 3, 8), Instrument("C/USD", 1, 8)])) == [
        "B/USD"
    ]
    assert listing.pairs == ["A/USD", "B/USD", "C/USD"]
    assert listing.take(InstrumentMessage("snapshot", [Instrument("C/USD", 1, 8)])) == []
    assert listing.pairs == ["C/USD"]
