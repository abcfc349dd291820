"""The past, read from PostgreSQL: the book of a pair at a time, rebuilt by the database itself.

What makes it exact stands in the SQL of `kraken_book_at`; a time of which there is no verified book is an error that
says why, never a book of another time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import psycopg

from collector.errors import UnusableDatabase
from collector.storage.database import Connection, translated

BOOK_AT = "SELECT side, price, size FROM kraken_book_at(%s, %s::timestamp, %s)"


class NoBook(Exception):  # noqa: N818 - named by what happened, as the field does
    """There is no verified book of that pair at that time; the text is one line that says why."""


class PriceLevel(NamedTuple):
    """What was on offer at a price, both with the digits that Kraken sent."""

    price: Decimal
    size: Decimal


@dataclass(frozen=True, slots=True)
class Book:
    """A pair's order book at a time; each side is best first."""

    pair: str
    at: datetime
    bids: list[PriceLevel]
    asks: list[PriceLevel]


def book_at(connection: Connection, pair: str, at: datetime, levels: int | None = None) -> Book:
    """Read the book of a pair, by its v2 symbol, at the aware time `at`: all levels, or the best of each side.

    Raises:
        NoBook: nobody was watching then, what was seen is gone, or an audit found it wrong below its ten best levels,
            which can be read still.
        StorageUnavailable: the database cannot be had now.
        UnusableDatabase: it has not got this collector's schema.

    """
    moment = at.astimezone(UTC).replace(tzinfo=None)
    try:
        with translated():
            rows = connection.execute(BOOK_AT, [pair, moment, levels]).fetchall()
    except psycopg.errors.NoDataFound as error:
        raise NoBook(error.diag.message_primary or str(error)) from error
    except (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable) as error:
        raise UnusableDatabase("the database has not got this collector's schema: run its migrate command") from error
    sides: dict[str, list[PriceLevel]] = {"bid": [], "ask": []}
    for side, price, size in rows:
        sides[side].append(PriceLevel(price, size))
    return Book(pair, at, sides["bid"], sides["ask"])
