"""What can go wrong with Kraken, on demand: knobs that a test turns while a server runs.

One object belongs to one server. A fault strikes at once (on the connections that are open now), or the next `times`
times that its occasion comes up, or every time while `times` is None; `lift` ends them all. Nothing here waits.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from trio_util import AsyncBool

from collector.kraken.server.frame_faults import cross_snapshot, deep_change_withholder, spoil_checksum, swapper

Alteration = Callable[[bytes], list[bytes] | None]
Value = TypeVar("Value")

# "Exceeded msg rate" as v1 and as some unknown part of v2 sends it; v2's own shape is a refusal with that text.
RATE_LIMIT_V1 = b'{"event":"error","errorMessage":"Exceeded msg rate"}'
RATE_LIMIT_BARE = b'{"Error":"Exceeded msg rate"}'
RATE_LIMIT_V2 = "Exceeded msg rate"


class LiveConnection(Protocol):
    """What faults need of an open connection."""

    number: int

    def push(self, payload: bytes, *, is_binary: bool = False) -> None:
        """Send any message."""

    def push_status(self, system: str) -> None:
        """Send a status message."""

    def close(self, code: int, reason: str | None = None) -> None:
        """Begin the closing handshake."""

    def reset(self) -> None:
        """Break the TCP connection."""

    def silence(self) -> None:
        """Leave the connection half-open, for the rest of its life."""


@dataclass(slots=True)
class _Armed(Generic[Value]):
    """A fault that waits for its occasion: what it does, and how often still (None: until lifted)."""

    value: Value
    left: int | None
    channel: str | None = None
    symbol: str | None = None

    def concerns(self, channel: str, symbol: str) -> bool:
        return self.channel in (None, channel) and self.symbol in (None, symbol)


def _strike(armed: list[_Armed[Value]], channel: str = "", symbol: str = "") -> Value | None:
    """Use up one occasion of the first fault that waits for this one."""
    for fault in armed:
        if fault.concerns(channel, symbol):
            _spend(armed, fault)
            return fault.value
    return None


def _spend(armed: list[_Armed[Value]], fault: _Armed[Value]) -> None:
    if fault.left is not None:
        fault.left -= 1
        if fault.left <= 0:
            armed.remove(fault)


class Faults:
    """The knobs of one server."""

    def __init__(self) -> None:
        self.listening = AsyncBool(value=True)
        self.accepting = True
        self.system = "online"
        self.answer_delay = 0.0
        self.rest_delay = 0.0
        self.rest_interval = 0.0
        self._connections: set[LiveConnection] = set()
        self._silent: set[LiveConnection] = set()
        self._held: dict[tuple[str, str], AsyncBool] = {}
        self._alterations: list[_Armed[Alteration]] = []
        self._ignored: list[_Armed[bool]] = []
        self._refusals: list[_Armed[str]] = []
        self._replacements: list[_Armed[bytes]] = []
        self._upgrade_statuses: list[_Armed[int]] = []
        self._rest_errors: list[_Armed[str]] = []
        self._rest_statuses: list[_Armed[int]] = []

    def lift(self) -> None:
        """End every fault: what was held back flows, who was cut off may come again, silent connections break."""
        self.listening.value = self.accepting = True
        self.set_system("online")
        self.answer_delay = self.rest_delay = self.rest_interval = 0.0
        for armed in (
            self._alterations,
            self._ignored,
            self._refusals,
            self._replacements,
            self._upgrade_statuses,
            self._rest_errors,
            self._rest_statuses,
        ):
            armed.clear()
        for held in self._held.values():
            held.value = False
        for connection in self._silent:
            connection.reset()

    # On the connections that are open now.

    @property
    def connections(self) -> list[LiveConnection]:
        """The open connections, oldest first."""
        return sorted(self._connections, key=lambda connection: connection.number)

    def close(self, code: int = 1001, reason: str | None = "CloudFlare WebSocket proxy restarting") -> None:
        """Close with a closing handshake."""
        for connection in self.connections:
            connection.close(code, reason)

    def reset(self) -> None:
        """Break the TCP connections, without a close frame."""
        for connection in self.connections:
            connection.reset()

    def go_silent(self) -> None:
        """Leave the connections half-open: up, but nothing comes any more, pongs and closing handshake included."""
        for connection in self.connections:
            connection.silence()
            self._silent.add(connection)

    def send(self, payload: bytes, *, is_binary: bool = False) -> None:
        """Send any message: malformed JSON, an unknown channel, an oversize or a binary one, a rate limit."""
        for connection in self.connections:
            connection.push(payload, is_binary=is_binary)

    def set_system(self, system: str) -> None:
        """Let the engine be `maintenance`, `post_only`, `cancel_only` or `online`: told to all, now and later."""
        if system != self.system:
            self.system = system
            for connection in self.connections:
                connection.push_status(system)

    # On the data of a pair.

    def hold(self, channel: str, symbol: str) -> None:
        """Send nothing of a subscription while heartbeats go on; it waits, and nothing is lost."""
        self._held.setdefault((channel, symbol), AsyncBool(value=False)).value = True

    def release(self, channel: str, symbol: str) -> None:
        """Let what was held flow."""
        self._held[channel, symbol].value = False

    def alter_frames(self, channel: str, symbol: str, alteration: Alteration, times: int | None = 1) -> None:
        """Send what `alteration` makes of a frame in its place; a None leaves it be, and does not count."""
        self._alterations.append(_Armed(alteration, times, channel, symbol))

    def bad_checksum(self, symbol: str, times: int | None = 1) -> None:
        """Send the next book messages with a checksum that is not theirs."""
        self.alter_frames("book", symbol, spoil_checksum, times)

    def cross_snapshot(self, symbol: str, times: int | None = 1) -> None:
        """Send the next snapshots with a best bid at the best ask, and the checksum that goes with it."""
        self.alter_frames("book", symbol, cross_snapshot, times)

    def withhold_deep_change(self, symbol: str, times: int | None = 1) -> None:
        """Leave out the next changes below the ten best levels of both sides, where no checksum shows it."""
        self.alter_frames("book", symbol, deep_change_withholder(), times)

    def drop(self, channel: str, symbol: str, times: int | None = 1) -> None:
        """Leave out the next messages: a gap in the trade ids, or a checksum that fails one message later."""
        self.alter_frames(channel, symbol, lambda _frame: [], times)

    def repeat(self, channel: str, symbol: str, times: int | None = 1) -> None:
        """Send the next messages twice."""
        self.alter_frames(channel, symbol, lambda frame: [frame, frame], times)

    def swap(self, channel: str, symbol: str) -> None:
        """Send the next two messages in the wrong order."""
        self.alter_frames(channel, symbol, swapper(), times=2)

    # On requests.

    def refuse(
        self, error: str, *, channel: str | None = None, symbol: str | None = None, times: int | None = None
    ) -> None:
        """Refuse to subscribe, with any text."""
        self._refusals.append(_Armed(error, times, channel, symbol))

    def answer_with(self, frame: bytes, times: int | None = 1) -> None:
        """Answer requests with any message, and do not do what they ask."""
        self._replacements.append(_Armed(frame, times))

    def ignore_requests(self, times: int | None = None) -> None:
        """Neither answer requests nor do what they ask."""
        self._ignored.append(_Armed(value=True, left=times))

    def delay_answers(self, seconds: float) -> None:
        """Take that long over every request."""
        self.answer_delay = seconds

    # On connecting.

    def refuse_upgrade(self, status: int, times: int | None = None) -> None:
        """Answer the WebSocket's upgrade with an HTTP status: 429, 503."""
        self._upgrade_statuses.append(_Armed(status, times))

    def refuse_connections(self) -> None:
        """Accept TCP connections and close them at once."""
        self.accepting = False

    def stop_listening(self) -> None:
        """Close the port, so that connecting is refused; connections that are open stay."""
        self.listening.value = False

    # On REST.

    def rest_error(self, error: str, times: int | None = None) -> None:
        """Answer with an error of the API, which comes with HTTP status 200."""
        self._rest_errors.append(_Armed(error, times))

    def rest_status(self, status: int, times: int | None = None) -> None:
        """Answer with an HTTP status and a page of HTML, as the edge in front of the API does."""
        self._rest_statuses.append(_Armed(status, times))

    def delay_rest(self, seconds: float) -> None:
        """Take that long over every call."""
        self.rest_delay = seconds

    def limit_rest(self, interval: float) -> None:
        """Refuse a call that comes less than `interval` seconds after one for the same path and pair."""
        self.rest_interval = interval

    # For the server.

    @contextmanager
    def attach(self, connection: LiveConnection) -> Generator[None, None, None]:
        """Let faults strike a connection while the block is open."""
        self._connections.add(connection)
        try:
            yield
        finally:
            self._connections.discard(connection)
            self._silent.discard(connection)

    async def wait_flowing(self, channel: str, symbol: str) -> None:
        """Wait while a subscription is held; no checkpoint when it is not."""
        if (held := self._held.get((channel, symbol))) is not None and held.value:
            await held.wait_value(value_or_predicate=False)

    def alter(self, channel: str, symbol: str, frames: Sequence[bytes]) -> Sequence[bytes]:
        """What is to be sent in the place of some frames."""
        if not self._alterations:
            return frames
        return [altered for frame in frames for altered in self._alter(channel, symbol, frame)]

    def _alter(self, channel: str, symbol: str, frame: bytes) -> list[bytes]:
        for fault in self._alterations:
            if fault.concerns(channel, symbol) and (altered := fault.value(frame)) is not None:
                _spend(self._alterations, fault)
                return altered
        return [frame]

    def ignores_request(self) -> bool:
        """Whether a request goes unanswered."""
        return _strike(self._ignored) is not None

    def replacement_answer(self) -> bytes | None:
        """What answers a request instead of the server."""
        return _strike(self._replacements)

    def refusal(self, channel: str, symbol: str) -> str | None:
        """Why a subscription is refused."""
        return _strike(self._refusals, channel, symbol)

    def upgrade_status(self) -> int | None:
        """The HTTP status that an upgrade gets."""
        return _strike(self._upgrade_statuses)

    def rest_failure(self) -> int | str | None:
        """The HTTP status or the API's error that a call gets."""
        status = _strike(self._rest_statuses)
        return status if status is not None else _strike(self._rest_errors)
