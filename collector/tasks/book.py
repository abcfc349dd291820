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

# A burst is let gather for this long before it is worked through: measured, the scheduler's switches cost more than
# the book when every message crosses alone (1.18 against 1.72 times cryptofeed's speed). It is done only when the
# batch before was a burst, so that a quiet market pays no latency for it.
GATHER_SECONDS = 0.002
BURST = 16  # events in a batch that make it a burst: at 2 ms a batch, 8,000 a second
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
    gathered = 0
    async for event in events:
        if gathered >= BURST:
            await trio.sleep(GATHER_SECONDS)
        batch = [event, *receive_waiting(events, BATCH_LIMIT)]
        gathered = len(batch)
        produced = books.take(batch, trio.current_time())
        if produced:
            publish(produced)
            await records.send(produced)
    await records.send(books.shut_down())
