"""A subscriber of the collector's Redis channels, in a process of its own, that notes when each message came.

    python -m bench.subscriber PORT FILE

A message came when the bytes with its end were read; it is taken apart only when all is over, so that no message has to
wait for the one before it. It says `subscribed` when it is, and ends with a line on its standard input, after which the
messages are in the file, a line each: nanoseconds since 1970, the channel, the message.
"""

import json
import select
import socket
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from collector.tasks.publish import BOOK_CHANNEL, TRADES_CHANNEL

READ_SIZE = 2**20
LINE_END = b"\r\n"


def subscribe(port: int) -> socket.socket:
    """Subscribe both channels, and wait for the answers."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(f"SUBSCRIBE {TRADES_CHANNEL} {BOOK_CHANNEL}\r\n".encode())
    answers = b""
    while answers.count(b"subscribe\r\n") < len((TRADES_CHANNEL, BOOK_CHANNEL)) or not answers.endswith(b":2\r\n"):
        answers += connection.recv(READ_SIZE)
    return connection


def listen(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """What is read, and when, until a line comes on standard input."""
    while True:
        readable, _, _ = select.select([connection, sys.stdin], [], [])
        if connection in readable:
            yield time.time_ns(), connection.recv(READ_SIZE)
        elif sys.stdin in readable:
            return


def messages(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The messages of what was read: where each one ends, its channel, and itself."""
    position = 0
    while position < len(data):
        parts = []
        _, position = _length(data, position)  # an array of three: the kind, the channel, the message
        for _ in range(3):
            length, position = _length(data, position)
            parts.append(data[position : position + length])
            position += length + len(LINE_END)
        yield position, parts[1], parts[2]


def _length(data: bytes, position: int) -> tuple[int, int]:
    """The number in a header of Redis' protocol, and where the header ends."""
    end = data.index(LINE_END, position)
    return int(data[position + 1 : end]), end + len(LINE_END)


def main(port: str, file: str) -> None:
    """Listen, then write down what came."""
    with subscribe(int(port)) as connection:
        print(json.dumps({"subscribed": 2}), flush=True)
        reads = list(listen(connection))
    ends, total = [], 0
    for _, chunk in reads:
        total += len(chunk)
        ends.append(total)
    lines = [
        b"%d %b %b\n" % (reads[bisect_left(ends, end)][0], channel, message)
        for end, channel, message in messages(b"".join(chunk for _, chunk in reads))
    ]
    Path(file).write_bytes(b"".join(lines))
    print(json.dumps({"messages": len(lines)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
