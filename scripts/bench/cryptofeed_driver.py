"""Runs cryptofeed on the server of frames, until SIGTERM. Runs on a Python of its own, which has cryptofeed.

    cryptofeed_driver.py PAIR DEPTH PORT DATABASE_URL

Checksums are validated, the books are as deep as the feed, batches have 500 rows, and a full queue blocks the feed
instead of dropping rows. All else is its default.
"""

import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias
from urllib.parse import urlsplit

from cryptofeed import FeedHandler
from cryptofeed.backends.postgres import BookPostgres, TradePostgres
from cryptofeed.connection import AsyncConnection
from cryptofeed.defines import L2_BOOK, TRADES
from cryptofeed.exchanges import Kraken
from cryptofeed.symbols import Symbol, Symbols

Coroutine: TypeAlias = Callable[..., Awaitable[None]]

BATCH = 500  # rows of one INSERT


class LoopbackKraken(Kraken):
    """Its Kraken feed, led to a server on loopback, whose address is not one that it takes: it has no TLS."""

    port = 0

    def connect(self) -> Iterator[tuple[AsyncConnection, Coroutine, Coroutine]]:
        """See Feed."""
        for connection, subscribe, handler in super().connect():
            connection.address = f"ws://127.0.0.1:{self.port}/v2"
            yield connection, subscribe, handler


def main(pair: str, depth: str, port: str, database_url: str) -> None:
    """Run until a signal comes."""
    symbol = Symbol(*pair.split("/"))
    # What it would otherwise ask REST for.
    Symbols.set(Kraken.id, {symbol.normalized: pair}, {"instrument_type": {symbol.normalized: symbol.type}})
    LoopbackKraken.port = int(port)
    url = urlsplit(database_url)
    options = {
        "host": url.hostname,
        "port": url.port,
        "user": url.username,
        "db": url.path.lstrip("/"),
        "batch_max": BATCH,
        "overflow": "block",
    }
    feed = LoopbackKraken(
        symbols=[symbol.normalized],
        channels=[L2_BOOK, TRADES],
        max_depth=int(depth),
        checksum_validation=True,
        callbacks={L2_BOOK: BookPostgres(**options), TRADES: TradePostgres(**options)},
    )
    handler = FeedHandler(config={"uvloop": True, "log": {"filename": "", "level": "WARNING"}})
    handler.add_feed(feed)
    handler.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
