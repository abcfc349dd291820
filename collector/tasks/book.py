"""The book-state task: the feed's events become verified books, and these become records.

It works through what has gathered as one batch, so that a burst costs one hop from task to task instead of one a
message, and hands each batch to the flush task before it takes the next. Nothing here waits for the socket: a book
that went wrong is put on a list, from which the socket task takes it.
"""

from collections.abc import Callable

import trio

from collector.books import Books
from collector.channels import receive_waiting
from collector.feed import Disconnected, FeedEvent
from collector.records import Interrupted, Record

BATCH_LIMIT = 8192  # events of one batch; more than any burst that was seen (5,000 messages)


async def keep_books(
    books: Books,
    events: trio.MemoryReceiveChannel[FeedEvent],
    records: trio.MemorySendChannel[list[Record]],
    publish: Callable[[list[Record]], None],
    interruption: str,
) -> None:
    """Turn events into records until the feed ends.

    Whatever run the spool left open, in an earlier process or before a crash of this group, ends by `interruption`
    before anything else.
    """
    await records.send([Interrupted(interruption)])
    heard_at = trio.current_time()
    async for event in events:
        batch = [event, *receive_waiting(events, BATCH_LIMIT)]
        heard_at = trio.current_time()
        produced = books.take(batch, heard_at)
        if produced:
            publish(produced)
            await records.send(produced)
    # Not until now: nobody knows whether the connection was alive since the last frame.
    await records.send(books.take([Disconnected("shutdown", heard_at)], heard_at))
