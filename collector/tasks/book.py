"""The book-state task: the feed's events become verified books, and these become records.

It works through what has gathered as one batch, so that a burst costs one hop from task to task instead of one a
message, and hands each batch to the flush task before it takes the next. Nothing here waits for the socket: a book
that went wrong is put on a list, from which the socket task takes it.
"""

from collections.abc import Callable

import trio

from collector.books import Books
from collector.channels import receive_waiting
from collector.feed import FeedEvent
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
    async for event in events:
        batch = [event, *receive_waiting(events, BATCH_LIMIT)]
        produced = books.take(batch, trio.current_time())
        if produced:
            publish(produced)
            await records.send(produced)
    await records.send(books.shut_down())
