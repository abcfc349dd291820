"""The decoder against real recordings, the documented frames, and whatever else may arrive."""

import json
import zlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.kraken.messages import (
    SAMPLE_LENGTH,
    BookMessage,
    Decoder,
    Heartbeat,
    InstrumentMessage,
    Malformed,
    Message,
    Response,
    Status,
    TradeMessage,
    Unknown,
)
from collector.kraken.orderbook import Level, OrderBook
from collector.kraken.pairs import Instrument
from collector.records import Trade

TIME = "2026-08-24T22:21:58.345080Z"
LEVEL = '{"price":62806.6,"qty":0.10000000}'
BOOK = f'{{"symbol":"BTC/USD","bids":[],"asks":[{LEVEL}],"checksum":265834348,"timestamp":"{TIME}"}}'
TRADE = (
    '{"symbol":"BTC/USD","side":"buy","price":83744.3,"qty":0.00044780,"ord_type":"limit","trade_id":109116693,'
    f'"timestamp":"{TIME}"}}'
)


def decode(frame: str | bytes) -> list[Message]:
    return Decoder(lambda: datetime(2026, 11, 24, tzinfo=UTC)).decode(frame)


def frame(channel: str, *elements: str, kind: str = '"update"') -> str:
    return f'{{"channel":"{channel}","type":{kind},"data":[{",".join(elements)}]}}'


def only(text: str) -> Message:
    (message,) = decode(text)
    return message


def malformed(text: str) -> Malformed:
    message = only(text)
    assert isinstance(message, Malformed)
    return message


def pairs_of_tokens(levels: list[Level]) -> list[tuple[str, str]]:
    return [(level.price.decode(), level.size.decode()) for level in levels]


@pytest.mark.parametrize(
    ("name", "depth", "books", "trades"),
    [
        ("btcusd_depth10_2023-07-30.ndjson", 10, 510, 0),
        ("btcusd_depth10_2023-08-30_reshaped.ndjson", 10, 980, 0),
        ("btcusd_depth10_2026-08-24_frames.ndjson", 10, 4, 0),
        ("btcusd_trades_2026-09-16_frames.ndjson", 10, 0, 7),
        ("tenpairs_depth1000_2021-04-17_reshaped.ndjson", 1000, 4279, 10),
    ],
)
def test_recordings_are_read_digit_by_digit_and_verified(
    recordings: Path, name: str, depth: int, books: int, trades: int
) -> None:
    """Prevents any difference from what Kraken really sent: digits, order, time, and every single checksum."""
    decoder = Decoder(lambda: datetime(2026, 11, 24, tzinfo=UTC))
    counts: Counter[type] = Counter()
    held: dict[str, OrderBook] = {}
    for line in (recordings / name).read_text().splitlines():
        recorded = json.loads(line, parse_float=str, parse_int=str)
        for position, message in enumerate(decoder.decode(line)):
            counts[type(message)] += 1
            if isinstance(message, BookMessage):
                element = recorded["data"][position]
                for side, levels in (("bids", message.bids), ("asks", message.asks)):
                    assert pairs_of_tokens(levels) == [(level["price"], level["qty"]) for level in element[side]]
                assert (message.pair, message.timestamp) == (element["symbol"], element.get("timestamp"))
                book = held.setdefault(message.pair, OrderBook(depth))
                (book.replace if message.type == "snapshot" else book.apply)(message.bids, message.asks)
                assert book.checksum() == message.checksum == int(element["checksum"])
                assert not book.is_crossed()
            elif isinstance(message, TradeMessage):
                counts[Trade] += len(message.trades)
                for trade, element in zip(message.trades, recorded["data"], strict=True):
                    assert (trade.pair, trade.side, trade.order_type, trade.trade_id, trade.event_time) == (
                        *(element["symbol"], element["side"], element["ord_type"]),
                        *(int(element["trade_id"]), element["timestamp"]),
                    )
                    assert (trade.price.decode(), trade.volume.decode()) == (element["price"], element["qty"])
    assert (counts[BookMessage], counts[Trade]) == (books, trades)
    assert not counts[Malformed] + counts[Unknown]


def test_frames_around_the_market_data(recordings: Path) -> None:
    """Prevents an acknowledgement, a status or a heartbeat from being taken for something else."""
    lines = (recordings / "btcusd_depth10_2026-08-24_frames.ndjson").read_text().splitlines()
    assert only(lines[0]) == Status("online")
    time = json.loads(lines[1])["time_out"]
    assert only(lines[1]) == Response("subscribe", None, None, "book", "BTC/USD", time)
    assert only(lines[3]) == Heartbeat()


def test_channel_that_was_not_asked_for_is_unknown_and_no_error() -> None:
    """Prevents a message of another channel from being counted as a broken one."""
    assert only('{"channel":"ohlc","type":"snapshot","data":{"whatever":1}}') == Unknown("ohlc")


def test_recorded_instruments_are_read(recordings: Path) -> None:
    """Prevents a real listing from being read as an empty one, or a pair of it as a broken one."""
    message = only((recordings / "instrument_snapshot.json").read_text())
    assert isinstance(message, InstrumentMessage)
    known = {instrument.symbol: instrument for instrument in message.instruments}
    assert known["BTC/USD"] == Instrument("BTC/USD", 1, 8, "online")


ANSWERED_AT = "2023-09-26T16:49:20.962630Z"


@pytest.mark.parametrize(
    ("text", "response"),
    [
        (
            '{"method":"subscribe","req_id":1,"result":{"channel":"trade","symbol":"A/B"},"success":true,"time_out":"@"}',
            Response("subscribe", 1, None, "trade", "A/B", ANSWERED_AT),
        ),
        (
            '{"error":"Currency pair not supported","method":"subscribe","req_id":9,"success":false,"symbol":"A/B"}',
            Response("subscribe", 9, "Currency pair not supported", None, "A/B", None),
        ),
        (
            '{"error":"Subscription depth not supported","method":"subscribe","success":false,"time_out":"@"}',
            Response("subscribe", None, "Subscription depth not supported", None, None, ANSWERED_AT),
        ),
        ('{"method":"subscribe","req_id":3}', Response("subscribe", 3, "refused without a reason", None, None, None)),
        (
            '{"method":"subscribe","success":"true"}',
            Response("subscribe", None, "refused without a reason", *3 * [None]),
        ),
        ('{"method":"subscribe","success":true,"error":"E"}', Response("subscribe", None, "E", None, None, None)),
        (
            '{"method":"pong","req_id":101,"time_out":"@"}',
            Response("pong", 101, None, None, None, ANSWERED_AT),
        ),
        ('{"Error":"Exceeded msg rate"}', Response(None, None, "Exceeded msg rate", None, None, None)),
        (
            '{"event":"error","errorMessage":"Exceeded msg rate"}',
            Response(None, None, "Exceeded msg rate", *3 * [None]),
        ),
        ('{"method":"subscribe","req_id":true,"success":true}', Response("subscribe", *5 * [None])),
        ('{"method":1,"req_id":"1","error":[2],"symbol":3,"time_out":4}', Response(None, None, "[2]", *3 * [None])),
    ],
)
def test_answers(text: str, response: Response) -> None:
    """Prevents a refusal that passes for a success, which leaves a book empty for ever."""
    assert only(text.replace("@", ANSWERED_AT)) == response


@pytest.mark.parametrize("token", ["5.1e-05", '"0.000051"', '"5.1E-5"'])
def test_numbers_in_other_spellings_become_plain(token: str) -> None:
    """Prevents a quoted or scientific number from being stored, or summed up in the checksum, as it came."""
    message = only(frame("book", BOOK.replace("0.10000000", token)))
    assert isinstance(message, BookMessage)
    assert pairs_of_tokens(message.asks) == [("62806.6", "0.000051")]
    assert zlib.crc32(message.asks[0].token or b"") == zlib.crc32(b"62806651")
    assert only(frame("trade", TRADE.replace("0.00044780", token))) == TradeMessage(
        "update", [Trade(TIME, "BTC/USD", b"83744.3", b"0.000051", "buy", "limit", 109116693)]
    )


@pytest.mark.parametrize("token", ["null", "-1", "true", '""', '"x"', "[]", "{}", "1e999", "9" * 50, "-0.0"])
@pytest.mark.parametrize(("channel", "element"), [("book", BOOK), ("trade", TRADE)])
def test_number_that_cannot_be_costs_its_element_and_names_the_pair(channel: str, element: str, token: str) -> None:
    """Prevents a bad number from being stored, and its good neighbours from being lost."""
    bad = element.replace("62806.6", token).replace("83744.3", token)
    good = element.replace("BTC/USD", "ETH/EUR")
    first, second, third = decode(frame(channel, good, bad, good))
    assert isinstance(second, Malformed)
    assert (second.channel, second.pair) == (channel, "BTC/USD")
    assert first == third == only(frame(channel, good))


@pytest.mark.parametrize(
    ("channel", "element"),
    [
        ("trade", TRADE.replace("0.00044780", "0.00000000")),
        ("trade", TRADE.replace("83744.3", "0")),
        ("trade", TRADE.replace("109116693", "-1")),
        ("trade", TRADE.replace("109116693", str(2**63))),
        ("trade", TRADE.replace('"buy"', '"b"')),
        ("trade", TRADE.replace('"limit"', '"li\\u0000mit"')),
        ("trade", TRADE.replace(TIME, "1970-01-01T00:00:00Z")),
        ("trade", TRADE.replace(f'"{TIME}"', "null")),
        ("book", BOOK.replace("62806.6", "0.0")),
        ("book", BOOK.replace("265834348", "-1")),
        ("book", BOOK.replace("265834348", str(2**32))),
        ("book", BOOK.replace('"checksum":265834348,', "")),
        ("book", BOOK.replace('"bids":[],', "")),
        ("book", BOOK.replace(TIME, "2031-01-01T00:00:00Z")),
        ("book", BOOK.replace(TIME, "2026-08-24T22:21:58.345080")),
    ],
)
def test_element_that_breaks_the_protocol_names_its_pair(channel: str, element: str) -> None:
    """Prevents a book that lost a message from going on as if it had not."""
    message = malformed(frame(channel, element))
    assert (message.channel, message.pair) == (channel, "BTC/USD")
    assert message.reason


@pytest.mark.parametrize("kind", ["null", '"replace"'])
@pytest.mark.parametrize(("channel", "element"), [("book", BOOK), ("trade", TRADE)])
def test_type_that_is_none_names_channel_and_pair(channel: str, element: str, kind: str) -> None:
    """Prevents a message of a new kind from being lost without its pair being resynced."""
    message = malformed(frame(channel, element, kind=kind))
    assert (message.channel, message.pair) == (channel, "BTC/USD")


def test_data_that_is_no_array_names_channel_and_pair() -> None:
    """Prevents a message in another shape from being lost without its pair being resynced."""
    message = malformed(f'{{"channel":"book","type":"update","data":{BOOK}}}')
    assert (message.channel, message.pair) == ("book", "BTC/USD")
    assert malformed('{"channel":"book","type":"update"}').channel == "book"


def test_sample_of_a_bad_frame_is_bounded() -> None:
    """Prevents a flood of large bad frames from filling the memory and the log."""
    assert malformed("x" * 100_000).sample == "x" * SAMPLE_LENGTH
    assert len(malformed(f'{{"method":"x","z":{"[" * 50_000}{"]" * 50_000}}}').sample) == SAMPLE_LENGTH


@given(st.one_of(st.text(), st.binary()))
def test_any_frame_gives_messages(text: str | bytes) -> None:
    """Prevents a frame that crashes the collector."""
    assert [type(message) for message in decode(text)] == [Malformed]


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from(["book", TIME])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
ANSWER = '{"method":"subscribe","req_id":1,"result":{"channel":"book","symbol":"BTC/USD"},"success":true,"error":"x"}'
FRAMES = [frame("book", BOOK, BOOK), frame("trade", TRADE, TRADE), frame("status", '{"system":"online"}'), ANSWER]


@settings(max_examples=300)
@given(st.sampled_from(FRAMES), st.data())
def test_any_value_in_any_place_gives_messages(text: str, data: st.DataObject) -> None:
    """Prevents a field of another type from crashing the collector."""
    parent = json.loads(text)
    root, path = {"": parent}, ""
    node, key = root, path
    while isinstance(node[key], dict | list) and node[key] and data.draw(st.integers(0, 9)):
        node = node[key]
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else list(range(len(node)))))
    node[key] = data.draw(json_values)
    assert all(isinstance(message, Message.__args__) for message in decode(json.dumps(root[""])))


@settings(max_examples=300)
@given(st.sampled_from(FRAMES), st.integers(0, 400), st.integers(0, 9), st.text(max_size=5))
def test_frames_with_a_cut_or_a_splice_give_messages(text: str, start: int, length: int, splice: str) -> None:
    """Prevents a truncated or damaged frame from crashing the collector."""
    assert all(
        isinstance(message, Message.__args__) for message in decode(text[:start] + splice + text[start + length :])
    )


INSTRUMENT = (
    '{"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"online","qty_precision":8,"qty_increment":1e-08,'
    '"price_precision":1,"cost_precision":5,"marginable":true,"has_index":true,"cost_min":0.5,"tick_size":0.1}'
)


def listing(*pairs: str, kind: str = "snapshot") -> str:
    return (
        f'{{"channel":"instrument","type":"{kind}","data":{{"assets":[{{"id":"BTC"}}],"pairs":[{",".join(pairs)}]}}}}'
    )


@pytest.mark.parametrize("kind", ["snapshot", "update"])
def test_instruments_are_read(kind: str) -> None:
    """Prevents a pair from being missed, or known with other decimals than it has."""
    gone = INSTRUMENT.replace("BTC/USD", "OLD/USD").replace("online", "delisted")
    assert only(listing(INSTRUMENT, gone, kind=kind)) == InstrumentMessage(
        kind, [Instrument("BTC/USD", 1, 8, "online"), Instrument("OLD/USD", 1, 8, "delisted")]
    )


def test_a_list_of_instruments_may_be_empty_or_missing() -> None:
    """Prevents a message about assets alone from being taken for a broken one."""
    empty = InstrumentMessage("update", [])
    assert only(listing(kind="update")) == empty
    assert only('{"channel":"instrument","type":"update","data":{"assets":[]}}') == empty


def test_an_instrument_that_breaks_the_protocol_costs_itself_alone() -> None:
    """Prevents one odd pair from hiding the whole exchange."""
    odd = INSTRUMENT.replace("BTC/USD", "ODD/USD").replace('"price_precision":1', '"price_precision":"one"')
    message, bad = decode(listing(odd, INSTRUMENT))
    assert message == InstrumentMessage("snapshot", [Instrument("BTC/USD", 1, 8, "online")])
    assert isinstance(bad, Malformed)
    assert (bad.channel, bad.pair) == ("instrument", "ODD/USD")
