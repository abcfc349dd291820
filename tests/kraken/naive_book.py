"""A client's book as plain as Kraken's guide reads, to check the server against something else than itself."""

import json
import zlib


class NaiveBook:
    """Applies whole messages and cuts to the depth, after the message or, with `eager`, after each entry."""

    def __init__(self, depth: int, *, eager: bool = False) -> None:
        self.depth = depth
        self.eager = eager
        self.sides: dict[str, dict[int, tuple[str, str]]] = {"bids": {}, "asks": {}}

    def best(self, side: str, count: int | None = None) -> list[tuple[str, str]]:
        levels = self.sides[side]
        return [levels[key] for key in sorted(levels, reverse=side == "bids")[:count]]

    def apply(self, frame: bytes | str) -> bool:
        """Take a book message; return whether its checksum is that of the book behind it."""
        message = read_digits(frame)
        (data,) = message["data"]
        if message["type"] == "snapshot":
            self.sides = {"bids": {}, "asks": {}}
        for side in ("bids", "asks"):
            for entry in data[side]:
                key = int(entry["price"].replace(".", ""))
                if entry["qty"].strip("0.") == "":
                    self.sides[side].pop(key, None)
                else:
                    self.sides[side][key] = entry["price"], entry["qty"]
                if self.eager:
                    self._cut(side)
            self._cut(side)
        return int(data["checksum"]) == self.checksum()

    def _cut(self, side: str) -> None:
        levels = self.sides[side]
        if len(levels) > self.depth:
            keys = sorted(levels, reverse=side == "bids")[: self.depth]
            self.sides[side] = {key: levels[key] for key in keys}

    def checksum(self) -> int:
        levels = self.best("asks", 10) + self.best("bids", 10)
        text = "".join(number.replace(".", "").lstrip("0") for level in levels for number in level)
        return zlib.crc32(text.encode())

    def is_crossed(self) -> bool:
        bids, asks = self.sides["bids"], self.sides["asks"]
        return bool(bids and asks) and max(bids) >= min(asks)


def read_digits(frame: bytes | str) -> dict:
    """A message with its numbers as text."""
    return json.loads(frame, parse_float=str, parse_int=str)
