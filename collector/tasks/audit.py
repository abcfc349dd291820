"""The deep audit: every level of every book against a fresh snapshot, on a connection of its own.

The feeds of the two connections are not in step, so the book is watched from before the snapshot is asked for until a
while after it came. Two misses in a row, each with a snapshot of its own, are a difference: it is recorded with its
levels, the run is suspect since its last good audit, and the pair is resynced. The comparing is done in a worker
thread, on a copy of what it takes, so that it holds up no message.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain, count

import structlog
import trio
from trio_websocket import WebSocketConnection

from collector.book_window import MAX_WINDOW, BookWindow, SnapshotSearch
from collector.books import Books
from collector.errors import FeedError
from collector.feed import Doubts
from collector.kraken.connection import open_connection, receive_messages
from collector.kraken.messages import BookMessage, Decoder, Response
from collector.kraken.requests import Method, Request
from collector.kraken.times import format_time
from collector.records import Audit, Difference, Record
from collector.rows import BookRows
from collector.settings import Settings
from collector.tasks.socket import Attempts

ANSWER_TIMEOUT = 10.0  # seconds for an answer or a snapshot
SETTLE_TIMEOUT = 5.0  # seconds that our feed may lag behind the other connection's
SETTLE_INTERVAL = 0.5  # seconds between two looks, each at the updates since the one before
TRIES = 2  # misses in a row that make a difference

log = structlog.get_logger()


async def audit_books(
    settings: Settings,
    current_books: Callable[[], Books | None],
    doubts: Doubts,
    records: trio.MemorySendChannel[list[Record]],
    attempts: Attempts,
) -> None:
    """Audit every book that is held, each `AUDIT_INTERVAL`, for ever."""
    while True:
        await trio.sleep(settings.audit_interval)
        await attempts.take_turn()
        try:
            async with open_connection(settings.kraken_ws_url) as websocket:
                auditor = _Auditor(websocket)
                for rows in [] if (books := current_books()) is None else books.held():
                    audit = await auditor.audit(rows)
                    if audit is not None:
                        await records.send([audit])
                        _report(audit, doubts)
        except FeedError as error:
            log.info("audit_failed", reason=error.reason, detail=error.detail, retry_in=settings.audit_interval)


def _report(audit: Audit, doubts: Doubts) -> None:
    if audit.differences:
        log.error("audit_difference", pair=audit.pair, chain=audit.chain, levels=audit.differences)
        doubts.add(audit.pair, audit.chain, "audit")
    else:
        log.info("audit_passed", pair=audit.pair, chain=audit.chain)


class _Auditor:
    """Audits one book after the other over one connection."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket
        self._decoder = Decoder(lambda: datetime.now(UTC))
        self._numbers = count(1)

    async def audit(self, rows: BookRows) -> Audit | None:
        """Compare a book with snapshots of it; None where its run ended meanwhile, or it changed too often to tell.

        Raises:
            FeedError: no snapshot is to be had.

        """
        run = rows.run
        if run is None:
            return None
        differences: list[Difference] = []
        for tries_left in reversed(range(TRIES)):
            window = rows.open_window()
            try:
                snapshot = await self._take_snapshot(rows.pair, rows.book.depth)
                search = window.search(snapshot)
                is_found = await _settle(window, search)
            finally:
                rows.close_window()
            if rows.run is not run:
                return None
            if is_found:
                break
            if window.is_full:
                log.warning("audit_given_up", pair=rows.pair, detail=f"more than {MAX_WINDOW} updates meanwhile")
                return None
            if not tries_left:
                differences = await trio.to_thread.run_sync(search.differences, window.updates())
        audited_at = snapshot.timestamp or format_time(datetime.now(UTC))
        return Audit(rows.pair, run.chain, audited_at, differences)

    async def _take_snapshot(self, pair: str, depth: int) -> BookMessage:
        await self._ask("subscribe", pair, depth)
        snapshot: BookMessage | None = None
        with trio.move_on_after(ANSWER_TIMEOUT):
            while snapshot is None:
                frames = await receive_messages(self._websocket)
                for message in chain.from_iterable(map(self._decoder.decode, frames)):
                    match message:
                        case BookMessage(type="snapshot") if message.pair == pair:
                            snapshot = message
                        case Response(error=str(error)):
                            raise FeedError("refused", f"{pair}: {error}")
        if snapshot is None:
            raise FeedError("unanswered", f"no snapshot of {pair} within {ANSWER_TIMEOUT:g} s")
        await self._ask("unsubscribe", pair, depth)
        return snapshot

    async def _ask(self, method: Method, pair: str, depth: int) -> None:
        request = Request(next(self._numbers), method, "book", [pair], depth)
        await self._websocket.send_message(request.encode())


async def _settle(window: BookWindow, search: SnapshotSearch) -> bool:
    """Whether our feed reaches the state of the snapshot, in the time that it may lag behind."""
    deadline = trio.current_time() + SETTLE_TIMEOUT
    while not await trio.to_thread.run_sync(search.finds, window.updates()):
        if window.is_full or trio.current_time() >= deadline:
            return False
        await trio.sleep(SETTLE_INTERVAL)
    return True
