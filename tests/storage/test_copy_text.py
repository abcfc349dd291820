"""COPY text: what Kraken may write comes out of PostgreSQL as it went in."""

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import TIME, book_row, trade
from stored import BOOK, TRADES

from collector.storage.copy_text import BOOK_COLUMNS, TRADE_COLUMNS, book_line, trade_line

# All that PostgreSQL's TEXT can hold: no NUL, and no half of a surrogate pair. What COPY treats as special is frequent.
TEXTS = st.text(st.sampled_from("\\\t\n\r\v\b\f.N 'x\"/") | st.characters(exclude_characters="\0", codec="utf-8"))
DIGITS = st.from_regex(r"(0|[1-9][0-9]{0,20})(\.[0-9]{1,18})?", fullmatch=True)
REPEATED = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def copied(url: str, table: str, columns: str, lines: bytes, query: str) -> list[tuple]:
    """What is read back of lines that were copied into a table; nothing of it stays there."""
    with psycopg.connect(url) as connection:
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            copy.write(lines)
        rows = connection.execute(query).fetchall()
        connection.rollback()
    return rows


@REPEATED
@given(st.lists(st.tuples(TEXTS, TEXTS, DIGITS, DIGITS), min_size=1, max_size=20))
def test_trades_round_trip(migrated_url: str, texts: list[tuple[str, str, str, str]]) -> None:
    """Prevents a special character from shifting columns or breaking a row, and digits from being changed."""
    trades = [
        trade(number, pair=pair, order_type=order_type, price=price.encode(), volume=volume.encode())
        for number, (pair, order_type, price, volume) in enumerate(texts)
    ]
    lines = b"".join(map(trade_line, trades))
    rows = copied(migrated_url, "kraken_trades", TRADE_COLUMNS, lines, f"{TRADES} ORDER BY trade_id")
    assert rows == [
        (TIME, pair, price, volume, "buy", order_type, number)
        for number, (pair, order_type, price, volume) in enumerate(texts)
    ]


@REPEATED
@given(TEXTS, st.lists(st.tuples(DIGITS, DIGITS), max_size=20), st.booleans())
def test_book_rows_round_trip(migrated_url: str, pair: str, levels: list[tuple[str, str]], is_evicting: bool) -> None:
    """Prevents JSONB from dropping a digit, and a NULL from becoming a text."""
    json = "[" + ",".join(f"[{price},{size}]" for price, size in levels) + "]"
    prices = ", ".join(price for price, _ in levels)
    evicted = f'{{"bids": [], "asks": [{prices}]}}' if is_evicting else None
    row = book_row(7, pair=pair, asks=json.encode(), bids=b"[]", evicted=evicted and evicted.encode())
    line = book_line(row).replace(b"2026-08-24", b"2026-08-24")
    with psycopg.connect(migrated_url) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS a_day PARTITION OF kraken_orderbook FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"
        )
    (stored,) = copied(migrated_url, "kraken_orderbook", BOOK_COLUMNS, line, BOOK)
    time, stored_pair, bids, asks, kind, checksum, chain, seq, stored_evicted = stored
    assert (time, stored_pair, bids) == (TIME, pair, "[]")
    assert asks.replace(", ", ",") == json
    assert (kind, checksum, chain, seq) == ("update", row.checksum, 1, 7)
    assert (stored_evicted is None) == (evicted is None)
    if evicted is not None:
        assert sorted(stored_evicted.replace(" ", "")) == sorted(evicted.replace(" ", ""))
