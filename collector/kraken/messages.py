"""What arrives on Kraken's v2 WebSocket, decoded.

Pure: the clock is passed in. Whatever a frame holds, `Decoder.decode` returns messages and raises nothing: a frame or
an element that breaks the protocol becomes a `Malformed` message, which names its pair where that can be read.
Numbers keep their digits (see digits.py).
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import msgspec

from collector.errors import MalformedMessage
from collector.kraken.digits import plain_digits
from collector.kraken.orderbook import Level, parse_level
from collector.kraken.pairs import Instrument
from collector.kraken.times import TimeReader
from collector.records import Trade

MessageType: TypeAlias = Literal["snapshot", "update"]

SAMPLE_LENGTH = 2048  # characters of a bad frame that are kept: enough to see what is wrong with it


class BookMessage(msgspec.Struct, frozen=True, gc=False):
    """A snapshot or an update of a pair's book. Early servers sent snapshots without a timestamp."""

    pair: str
    type: MessageType
    bids: list[Level]
    asks: list[Level]
    checksum: int
    timestamp: str | None


class TradeMessage(msgspec.Struct, frozen=True, gc=False):
    """Trades of one message: `snapshot` repeats the latest 50, `update` brings new ones."""

    type: MessageType
    trades: list[Trade]


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """The server lives and has nothing to say."""


class Status(msgspec.Struct, frozen=True, gc=False):
    """The state of the trading engine: `online`, or any other word for not online."""

    system: str


class Response(msgspec.Struct, frozen=True, gc=False):
    """The answer to a request. `error` is None where it succeeded; `pair` and `channel` are not always told."""

    method: str | None
    request: int | None
    error: str | None
    channel: str | None
    pair: str | None
    time: str | None


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """A frame, or an element of one, that breaks the protocol."""

    reason: str
    channel: str | None
    pair: str | None
    sample: str


class InstrumentMessage(msgspec.Struct, frozen=True, gc=False):
    """Pairs of the exchange: all of them in a `snapshot`, those that are new or changed in an `update`."""

    type: MessageType
    instruments: list[Instrument]


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """A well-formed message of a channel that was not asked for."""

    channel: str


Message: TypeAlias = (
    BookMessage | TradeMessage | InstrumentMessage | Heartbeat | Status | Response | Malformed | Unknown
)


class _Envelope(msgspec.Struct, gc=False):
    channel: str | None = None
    type: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Entry(msgspec.Struct, gc=False):
    price: msgspec.Raw
    qty: msgspec.Raw


class _Book(msgspec.Struct, gc=False):
    symbol: str
    bids: list[_Entry]
    asks: list[_Entry]
    checksum: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    timestamp: str | None = None


class _Trade(msgspec.Struct, gc=False):
    symbol: str
    side: Literal["buy", "sell"]
    price: msgspec.Raw
    qty: msgspec.Raw
    ord_type: str
    trade_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    timestamp: str


class _Listing(msgspec.Struct, gc=False):
    pairs: list[msgspec.Raw] = []


class _System(msgspec.Struct, gc=False):
    system: str


class _Named(msgspec.Struct, gc=False):
    symbol: str


class Decoder:
    """Decodes the frames of one connection; `now` is the UTC clock that timestamps are held against."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._read_time = TimeReader(now)

    def decode(self, frame: str | bytes) -> list[Message]:
        """The messages of a frame, in order."""
        try:
            if isinstance(frame, bytes):
                return [_malformed("a binary frame", frame)]
            return self._decode_text(frame)
        except (msgspec.DecodeError, MalformedMessage, RecursionError) as error:  # deep nesting ends in the last one
            return [_malformed(str(error), frame)]

    def _decode_text(self, frame: str) -> list[Message]:
        envelope = _envelope_decoder.decode(frame)
        match envelope.channel:
            case "book":
                return self._decode_books(envelope, frame)
            case "trade":
                return self._decode_trades(envelope, frame)
            case "heartbeat":
                return [Heartbeat()]
            case None:
                return [self._decode_response(frame)]
            case channel:
                return _decode_rare(channel, envelope, frame)

    def _decode_books(self, envelope: _Envelope, frame: str) -> list[Message]:
        try:
            message_type = _message_type(envelope)
            return [self._book(book, message_type) for book in _books_decoder.decode(envelope.data)]
        except (msgspec.DecodeError, MalformedMessage):
            return _salvage(
                envelope, frame, lambda data: self._book(_book_decoder.decode(data), _message_type(envelope))
            )

    def _decode_trades(self, envelope: _Envelope, frame: str) -> list[Message]:
        try:
            message_type = _message_type(envelope)
            trades = [self._trade(trade) for trade in _trades_decoder.decode(envelope.data)]
        except (msgspec.DecodeError, MalformedMessage):
            return _salvage(
                envelope,
                frame,
                lambda data: TradeMessage(_message_type(envelope), [self._trade(_trade_decoder.decode(data))]),
            )
        return [TradeMessage(message_type, trades)]

    def _book(self, book: _Book, message_type: MessageType) -> BookMessage:
        return BookMessage(
            book.symbol,
            message_type,
            _levels(book.bids) if book.bids else [],
            _levels(book.asks) if book.asks else [],
            book.checksum,
            None if book.timestamp is None else self._read_time(book.timestamp),
        )

    def _trade(self, trade: _Trade) -> Trade:
        if not trade.ord_type.isprintable():  # PostgreSQL takes no NUL in a text, and Kraken's words have none
            raise MalformedMessage(f"an order type that is no word: {trade.ord_type!r}")
        return Trade(
            self._read_time(trade.timestamp),
            trade.symbol,
            _above_zero(plain_digits(bytes(trade.price))),
            _above_zero(plain_digits(bytes(trade.qty))),
            trade.side,
            trade.ord_type,
            trade.trade_id,
        )

    def _decode_response(self, frame: str) -> Response:
        """Decode an answer; a missing `success` is a failure, and an error has been seen under three names."""
        answer = msgspec.json.decode(frame)
        error = answer.get("error") or answer.get("Error") or answer.get("errorMessage")
        if error is None and "method" not in answer:
            raise MalformedMessage("neither a channel nor an answer")
        if answer.get("success") is not True and error is None and answer.get("method") != "pong":
            error = "refused without a reason"
        request = answer.get("req_id")
        result = answer.get("result")
        named = result if isinstance(result, dict) else answer
        return Response(
            method=_text(answer.get("method")),
            request=request if type(request) is int else None,  # True is an int too, and equal to 1
            error=None if error is None else str(error),
            channel=_text(named.get("channel")),
            pair=_text(named.get("symbol")),
            time=self._time_or_none(answer.get("time_out")),
        )

    def _time_or_none(self, value: object) -> str | None:
        """The time of an answer, None where it has none that can be: it only begins a run's coverage."""
        try:
            return self._read_time(value) if isinstance(value, str) else None
        except MalformedMessage:
            return None


_envelope_decoder = msgspec.json.Decoder(_Envelope)
_books_decoder = msgspec.json.Decoder(list[_Book])
_book_decoder = msgspec.json.Decoder(_Book)
_trades_decoder = msgspec.json.Decoder(list[_Trade])
_trade_decoder = msgspec.json.Decoder(_Trade)
_listing_decoder = msgspec.json.Decoder(_Listing)
_instrument_decoder = msgspec.json.Decoder(Instrument)
_statuses_decoder = msgspec.json.Decoder(list[_System])
_elements_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_named_decoder = msgspec.json.Decoder(_Named)


def _decode_rare(channel: str, envelope: _Envelope, frame: str) -> list[Message]:
    match channel:
        case "status":
            return [Status(item.system) for item in _statuses_decoder.decode(envelope.data)]
        case "instrument":
            return _decode_instruments(envelope, frame)
        case _:
            return [Unknown(channel)]


def _decode_instruments(envelope: _Envelope, frame: str) -> list[Message]:
    """Decode a listing; a pair that breaks the protocol costs itself alone."""
    instruments: list[Instrument] = []
    messages: list[Message] = [InstrumentMessage(_message_type(envelope), instruments)]
    for element in _listing_decoder.decode(envelope.data).pairs:
        try:
            instruments.append(_instrument_decoder.decode(element))
        except msgspec.DecodeError as error:
            messages.append(_malformed(str(error), frame, envelope.channel, _pair_of(element)))
    return messages


def _message_type(envelope: _Envelope) -> MessageType:
    if envelope.type == "update":
        return "update"
    if envelope.type == "snapshot":
        return "snapshot"
    raise MalformedMessage(f"a {envelope.channel} message of type {envelope.type!r}")


def _levels(entries: list[_Entry]) -> list[Level]:
    return [parse_level(bytes(entry.price), bytes(entry.qty)) for entry in entries]


def _above_zero(digits: bytes) -> bytes:
    if not digits.strip(b"0."):
        raise MalformedMessage("a trade with a price or a quantity of 0")
    return digits


def _malformed(reason: str, frame: str | bytes, channel: str | None = None, pair: str | None = None) -> Malformed:
    sample = frame[:SAMPLE_LENGTH]
    return Malformed(reason, channel, pair, sample if isinstance(sample, str) else repr(sample))


def _salvage(envelope: _Envelope, frame: str, decode: Callable[[msgspec.Raw], Message]) -> list[Message]:
    """Decode a message's elements one by one, so that a bad one costs itself alone and is told by its pair."""
    try:
        elements = _elements_decoder.decode(envelope.data)
    except msgspec.DecodeError as error:
        return [_malformed(str(error), frame, envelope.channel, _pair_of(envelope.data))]
    messages: list[Message] = []
    for element in elements:
        try:
            messages.append(decode(element))
        except (msgspec.DecodeError, MalformedMessage) as error:
            messages.append(_malformed(str(error), frame, envelope.channel, _pair_of(element)))
    return messages


def _pair_of(element: msgspec.Raw) -> str | None:
    try:
        return _named_decoder.decode(element).symbol
    except msgspec.DecodeError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
