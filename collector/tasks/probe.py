"""Probes books that have gone quiet.

A subscription can die on its own: acknowledged, heartbeats coming, and no data any more. Silence alone is no fault,
since a quiet market is silent for minutes, so the book is held against REST: two reads that disagree with it, while
still nothing came, end its run and have the pair resynced. REST's answers are cached at the edge for 2 s and have
rounded volumes, so that prices are compared, and the second read comes later than the cache lasts.
"""

from collections.abc import Callable

import httpx2
import structlog
import trio

from collector.books import Books
from collector.errors import RestError
from collector.feed import Doubts
from collector.kraken.rest import fetch_depth
from collector.rows import BookRows
from collector.settings import Settings

INTERVAL = 5.0  # seconds between two looks for quiet books
QUIET_AFTER = 30.0  # seconds without a message; the longest gap measured on a healthy, thin pair was 25.8
AGAIN_AFTER = 5.0  # seconds between the two reads
REQUEST_SPACING = 1.0  # seconds between requests: what Kraken allows without a limit
LEVELS = 10  # of each side; as many as the checksum covers

log = structlog.get_logger()


async def probe_quiet_books(settings: Settings, current_books: Callable[[], Books | None], doubts: Doubts) -> None:
    """Probe every book that is quiet, again each `QUIET_AFTER` that it stays so, for ever."""
    probed_at: dict[str, float] = {}
    async with httpx2.AsyncClient(base_url=settings.kraken_rest_url) as client:
        while True:
            await trio.sleep(INTERVAL)
            books = current_books()
            for rows in [] if books is None else books.quiet_for(QUIET_AFTER):
                if trio.current_time() - probed_at.get(rows.pair, 0.0) >= QUIET_AFTER:
                    await _probe(client, rows, doubts)
                    probed_at[rows.pair] = trio.current_time()
                    await trio.sleep(REQUEST_SPACING)


async def _probe(client: httpx2.AsyncClient, rows: BookRows, doubts: Doubts) -> None:
    run = rows.run
    if run is None:
        return
    last_seen = run.last_seen
    try:
        if await _agrees(client, rows):
            return
        await trio.sleep(AGAIN_AFTER)
        agrees = await _agrees(client, rows)
    except RestError as error:
        log.info("probe_failed", pair=rows.pair, error=str(error))
        return
    if not agrees and rows.run is run and run.last_seen == last_seen:
        doubts.add(rows.pair, run.chain, "silent_subscription")


async def _agrees(client: httpx2.AsyncClient, rows: BookRows) -> bool:
    """Whether the best prices that REST tells are those of our book."""
    bids, asks = await fetch_depth(client, rows.pair, LEVELS)
    book = rows.book
    return bids == [level.rank for level in book.bids.best(LEVELS)] and asks == [
        level.rank for level in book.asks.best(LEVELS)
    ]
