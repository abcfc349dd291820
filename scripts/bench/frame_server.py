"""A server of frames, in a process of its own: it grants what is subscribed, and then sends a tape.

    python -m bench.frame_server TAPE PAIRS [RATE]

It is never what limits a contestant: without a rate, the tape is one sendfile(2), in which Python has no part. With
one, in messages a second, each frame is sent when the market's clock says, bursts included, and the time of each is
noted. It serves one connection. On its standard output it says, a JSON object a line, the `port`, how much is
`subscribed`, and when the first frame was `sent`. The snapshots come with the subscriptions, all else when a line comes
on its standard input; it ends with the connection or with that input.
"""

import json
import select
import socket
import sys
import time
from array import array
from pathlib import Path

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

from bench.tape import read_schedule
from collector.kraken.server.messages import HEARTBEAT
from collector.kraken.server.requests import Topic, granted, parse_request
from collector.kraken.server.source import format_nanoseconds

HEARTBEAT_INTERVAL = 1.0  # seconds, as Kraken's
READ_SIZE = 65_536
SUBSCRIPTIONS = 2  # of each pair: its book and its trades


def sent_times_of(path: Path) -> Path:
    """The file that says when each frame of a tape was sent that had a rate: 64-bit numbers, nanoseconds since 1970."""
    return path.with_suffix(".sent")


def tell(**what: object) -> None:
    """Say something to the process that started this one."""
    print(json.dumps(what), flush=True)


class Client:
    """The connection of the one client."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.subscriptions = 0
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._text = ""

    def read(self) -> bool:
        """Answer what the client has sent; whether it is still there."""
        data = self.socket.recv(READ_SIZE)
        self._protocol.receive_data(data or None)
        for event in self._protocol.events():
            match event:
                case Request():
                    self.socket.sendall(self._protocol.send(AcceptConnection()))
                case TextMessage(data=text, message_finished=finished):
                    self._text += text
                    if finished:
                        self._grant(self._text)
                        self._text = ""
                case Ping():
                    self.socket.sendall(self._protocol.send(event.response()))
                case CloseConnection():
                    self.socket.sendall(self._protocol.send(event.response()))
                    return False
        return bool(data)

    def send(self, message: bytes) -> None:
        """Send one message."""
        self.socket.sendall(self._protocol.send(TextMessage(data=message.decode())))

    def _grant(self, text: str) -> None:
        request = parse_request(text)
        now = format_nanoseconds(time.time_ns())
        for symbol in request.params["symbol"]:
            topic = Topic(request.params["channel"], symbol, request.params.get("depth", 0))
            self.send(granted(request, topic, now, now, snapshot=True))
            self.subscriptions += request.method == "subscribe"


def keep_alive(client: Client) -> bool:
    """Answer and send heartbeats until a line comes, or the input ends; whether to go on."""
    beat = time.monotonic()
    while True:
        readable, _, _ = select.select([client.socket, sys.stdin], [], [], HEARTBEAT_INTERVAL)
        if client.socket in readable and not client.read():
            return False
        if sys.stdin in readable:
            return bool(sys.stdin.readline())
        if time.monotonic() - beat >= HEARTBEAT_INTERVAL:
            client.send(HEARTBEAT)
            beat = time.monotonic()


def send_snapshots(client: Client, path: Path, pairs: int) -> int:
    """Send the beginning of the tape, a snapshot of each pair; return where it ends."""
    _, ends = read_schedule(path)
    with path.open("rb") as file:
        client.socket.sendfile(file, count=ends[pairs - 1])
    return ends[pairs - 1]


def blast(client: Client, path: Path, begin: int) -> int:
    """Send the tape from an offset on, as fast as it is taken; return when that began, in nanoseconds since 1970."""
    with path.open("rb") as file:
        began = time.time_ns()
        client.socket.sendfile(file, offset=begin)
    return began


def pace(client: Client, path: Path, begin: int, rate: float) -> int:
    """Send each frame from an offset on when it is due, and write down when that was; return when it began.

    The market's clock is stretched so that the tape has the rate.
    """
    due, ends = read_schedule(path)
    stretch = len(due) / rate / due[-1]
    frames = memoryview(path.read_bytes())
    began, start = time.time_ns(), time.monotonic()
    sent = array("q")
    for offset, end in zip(due, ends, strict=True):
        left = start + offset * stretch - time.monotonic()
        if left > 0:
            time.sleep(left)
        sent.append(time.time_ns())
        client.socket.sendall(frames[begin:end])  # nothing, of a snapshot: that was sent before
        begin = max(begin, end)
    sent_times_of(path).write_bytes(sent.tobytes())
    return began


def serve(path: Path, pairs: int, rate: float | None = None) -> None:
    """Serve one client to its end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tell(port=listener.getsockname()[1])
        connected, _ = listener.accept()
    with connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = Client(connected)
        while client.subscriptions < SUBSCRIPTIONS * pairs:
            if not client.read():
                return
        begin = send_snapshots(client, path, pairs)
        tell(subscribed=client.subscriptions)
        if keep_alive(client):
            tell(sent=blast(client, path, begin) if rate is None else pace(client, path, begin, rate))
            while keep_alive(client):
                pass


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:]))
