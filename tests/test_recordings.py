"""Real traffic of Kraken's, replayed through everything: server, socket, book, spool and PostgreSQL."""

from pathlib import Path

import pytest
from collecting import collecting, count, open_kraken, settings_for, wait_until
from stored import (
    assert_same,
    coverage,
    entries,
    sent_books,
    sent_trades,
    stored_books,
    stored_trades,
    verify_checksums,
)

from collector.kraken.server.tape import TapeSource

# File: book rows, trades, checksums that fail.
RECORDINGS = {
    "btcusd_depth10_2023-07-30.ndjson": (510, 0),
    "btcusd_depth10_2023-08-30_reshaped.ndjson": (980, 0),
    "tenpairs_depth1000_2021-04-17_reshaped.ndjson": (4279, 10),
    "btcusd_depth10_2026-08-24_frames.ndjson": (None, 0),
    "btcusd_trades_2026-09-16_frames.ndjson": (0, 7),
}


@pytest.mark.parametrize("name", RECORDINGS)
async def test_recording_is_stored_as_it_was_sent(
    name: str, recordings: Path, migrated_url: str, tmp_path: Path
) -> None:
    """Prevents any digit, order or row of real traffic from being lost or changed on the way to the database."""
    frames = (recordings / name).read_bytes().splitlines()
    source = TapeSource(frames)
    books, trades = sent_books(frames_of_channels(frames)), sent_trades(frames_of_channels(frames))
    book_rows = sum(map(len, books.values()))
    expected_rows, expected_trades = RECORDINGS[name]
    assert expected_rows in (book_rows, None)
    assert len(trades) == expected_trades
    async with open_kraken(source) as kraken:
        (depth,) = next(iter(source.depths.values()))
        settings = settings_for(kraken, migrated_url, tmp_path, pairs=tuple(source.instruments), book_depth=depth)
        async with collecting(settings) as collector:
            await wait_until(lambda: collector.statistics.stored_rows >= book_rows + len(trades))
    assert not collector.statistics.desyncs
    assert not collector.statistics.malformed
    assert kraken.sent.keys() == {1}
    chains = stored_books(migrated_url)
    assert {pair for pair, _ in chains} == books.keys()
    assert len(chains) == len(books)
    for (pair, _), rows in chains.items():
        assert_same(entries(rows), books[pair])
        assert verify_checksums(rows) == len(rows)
    assert count(migrated_url) == book_rows, "no checkpoint comes due within a minute"
    assert stored_trades(migrated_url) == sorted(trades, key=lambda trade: (trade.pair, trade.trade_id))
    for run in coverage(migrated_url):
        assert run.rows == len(books[run.pair]) == run.updates + 1
        assert run.end_reason == "shutdown"


def frames_of_channels(frames: list[bytes]) -> list[bytes]:
    """The frames of the two channels that are collected, without what a server says for itself."""
    return [frame for frame in frames if b'"channel":"book","type"' in frame or b'"channel":"trade","type"' in frame]
