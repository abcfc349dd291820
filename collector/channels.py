"""What trio's memory channels lack."""

from typing import TypeVar

import trio

Item = TypeVar("Item")


def receive_waiting(channel: trio.MemoryReceiveChannel[Item], limit: int) -> list[Item]:
    """What has arrived already, at most `limit` items, without waiting for more."""
    items: list[Item] = []
    try:
        while len(items) < limit:
            items.append(channel.receive_nowait())
    except (trio.WouldBlock, trio.EndOfChannel):
        pass
    return items
