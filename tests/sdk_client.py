"""A bot on python-kraken-sdk, which nobody here wrote: keeps a book for some messages and prints what it made of them.

Run as a process of its own, since that client runs on asyncio. Its arguments: the WebSocket's address, REST's address,
the pair, the depth, and after how many book messages to end.
"""

import asyncio
import json
import random
import sys

from kraken.spot import SpotClient, SpotOrderBookClient


class Bot(SpotOrderBookClient):
    """Counts what it is told; `done` is set after enough book messages."""

    def __init__(self, depth: int, wanted: int) -> None:
        super().__init__(depth=depth)
        self.messages = 0
        self.errors: list[str] = []
        self.snapshots = 0
        self.books: dict[str, list[list[str]]] = {}
        self.wanted = wanted
        self.done = asyncio.Event()

    async def on_book_update(self, pair: str, message: dict) -> None:
        if "error" in message:
            self.errors.append(message["error"])
        elif self.messages < self.wanted:
            self.messages += 1
            self.snapshots += message["type"] == "snapshot"
            self.books = {
                side: [[price, size] for price, (size, _) in self.get(pair)[side].items()] for side in ("bid", "ask")
            }
        if self.errors or self.messages == self.wanted:
            self.done.set()


async def main(ws_url: str, rest_url: str, pair: str, depth: str, wanted: str) -> None:
    # The order book client takes no addresses, so that they are set where it looks them up.
    SpotClient.URL = rest_url
    SpotOrderBookClient.WS_URL = ws_url.removesuffix(SpotOrderBookClient.API_V)
    random.seed(0)
    bot = Bot(int(depth), int(wanted))
    async with bot:
        await bot.add_book(pairs=[pair])
        await bot.done.wait()
    json.dump({"errors": bot.errors, "messages": bot.messages, "snapshots": bot.snapshots, **bot.books}, sys.stdout)


asyncio.run(main(*sys.argv[1:]))
