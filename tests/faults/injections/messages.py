"""Messages that are not what Kraken promises: what is wrong ends its own pair's run, and costs nobody else a row."""

import re
from collections.abc import Callable

from faults.bench import Bench
from faults.fault import INSIDE, KRAKEN, PROCESS, Fault, Strike
from faults.market import PAIRS

BITCOIN, ETHER = PAIRS
QUANTITY = re.compile(rb'"qty":(\d+\.\d+)')
PRICE = re.compile(rb'"price":(\d+\.\d+)')
QUIET_CONSTANTS = {
    "collector.tasks.probe:INTERVAL": 0.5,
    "collector.tasks.probe:QUIET_AFTER": 6.0,  # more than any other fault lets a book be quiet
    "collector.tasks.probe:AGAIN_AFTER": 1.0,
}
STRAY_FRAMES = (
    b'{"channel":"book","type":"update","data":[{"symbol":',
    b"\xc3\xa9" * 10,
    b"null",
    b"[]",
    b'{"channel":"ohlc","type":"update","data":[{"symbol":"BTC/USD","close":1}],"news":{}}',
    b'{"channel":"status","type":"update","data":[{"system":"online","weather":"fine"}]}',
    b"[" * 50_000,
    b'{"channel":"book","type":"update","data":[]}',
    b'{"channel":"trade","type":"update","data":[]}',
)


def replace(pattern: re.Pattern[bytes], make: Callable[[bytes], bytes]) -> Callable[[bytes], list[bytes]]:
    """An alteration of a frame: the first number of a kind becomes another."""

    def alter(frame: bytes) -> list[bytes]:
        return [pattern.sub(lambda match: match[0].replace(match[1], make(match[1])), frame, count=1)]

    return alter


def in_books_and_trades(pattern: re.Pattern[bytes], make: Callable[[bytes], bytes]) -> Strike:
    """The next book message of one pair and the next trades of the other carry something else for a number."""

    async def strike(bench: Bench) -> None:
        bench.faults.alter_frames("book", BITCOIN, replace(pattern, make))
        bench.faults.alter_frames("trade", ETHER, replace(pattern, make))

    return strike


def negative(digits: bytes) -> bytes:
    """The same number below zero."""
    return b"-" + digits


def as_exponent(digits: bytes) -> bytes:
    """The same number in scientific notation, with all of its digits."""
    whole, _, decimals = digits.partition(b".")
    return b"%de-%d" % (int(whole + decimals), len(decimals))


async def unknown_fields(bench: Bench) -> None:
    """Kraken adds fields."""
    for channel in ("book", "trade"):
        bench.faults.alter_frames(
            channel,
            BITCOIN,
            lambda frame: [frame.replace(b'"symbol"', b'"news":{"a":[1.5,null]},"symbol"', 1)],
            times=20,
        )


async def stray(bench: Bench) -> None:
    """Frames that are no messages, between those that are."""
    for frame in STRAY_FRAMES:
        bench.faults.send(frame)
    bench.faults.send(b'{"channel":"heartbeat"}', is_binary=True)


async def checksums(bench: Bench) -> None:
    """Wrong once, then several times in a row: the first resync is at once, the others wait longer each time."""
    bench.faults.bad_checksum(ETHER)
    await bench.recovered()
    bench.faults.bad_checksum(ETHER, times=3)


async def books_out_of_step(bench: Bench) -> None:
    """Book messages that are lost, repeated and out of order."""
    bench.faults.drop("book", BITCOIN)
    bench.faults.repeat("book", ETHER, times=3)
    await bench.recovered()
    bench.faults.swap("book", ETHER)


async def crossed(bench: Bench) -> None:
    """A snapshot whose best bid reaches the best ask, with the checksum that goes with it."""
    bench.faults.cross_snapshot(BITCOIN)
    bench.close(1001)


async def trade_ids(bench: Bench) -> None:
    """Trades that are missing, repeated and out of order: what came is stored once."""
    bench.faults.drop("trade", BITCOIN)
    bench.faults.repeat("trade", ETHER, times=5)
    await bench.recovered()
    bench.faults.swap("trade", BITCOIN)
    await bench.collecting()


async def silent(bench: Bench) -> None:
    """Heartbeats come, and nothing of one subscription."""
    await bench.connected()
    async with bench.holding(["book"], [ETHER]):
        async with bench.expecting("book_desync", reason="silent_subscription"):
            pass
        bench.give_up_book(ETHER)
    bench.mended()


async def refused(bench: Bench) -> None:
    """One pair is refused for a while, as when its market is closed; the other goes on."""
    async with bench.expecting("pair_refused", times=2):
        bench.faults.refuse(f"Currency pair not supported {ETHER}", symbol=ETHER, times=2)
        bench.close(1001)


NUMBERS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], bytes]]] = {
    "null for a number": (QUANTITY, lambda _: b"null"),
    "word for a number": (PRICE, lambda _: b'"many"'),
    "price 0": (PRICE, lambda _: b"0.0"),
    "negative quantity": (QUANTITY, negative),
}
FAULTS = (
    Fault("stray frames", stray, KRAKEN),
    Fault("unknown fields", unknown_fields, KRAKEN),
    *(Fault(name, in_books_and_trades(*how), KRAKEN, reasons=["malformed"]) for name, how in NUMBERS.items()),
    Fault("string for a number", in_books_and_trades(QUANTITY, lambda digits: b'"%b"' % digits), KRAKEN),
    Fault("exponent", in_books_and_trades(QUANTITY, as_exponent), KRAKEN),
    Fault("wrong checksum", checksums, KRAKEN, reasons=["checksum"]),
    Fault("books out of step", books_out_of_step, KRAKEN, reasons=["checksum"]),
    Fault("crossed book", crossed, KRAKEN, reasons=["closed_1001"]),
    Fault("trade ids", trade_ids, KRAKEN),
    # The run that goes silent must not end by anything else before that is seen.
    Fault(
        "silent subscription",
        silent,
        KRAKEN | PROCESS | INSIDE,
        reasons=["silent_subscription"],
        constants=QUIET_CONSTANTS,
    ),
    Fault(
        "refused subscribe",
        refused,
        KRAKEN | PROCESS | INSIDE,
        constants={"collector.tasks.subscriptions:REFUSED_RETRY": 2.0},
    ),
)
