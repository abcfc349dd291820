"""`book`: the order book of a pair as it was at a time, from the database."""

import sys
from decimal import Decimal
from itertools import zip_longest

from rich.console import Console
from rich.table import Table

from collector import exit_status
from collector.commands.arguments import read_pair, read_time, told_in_one_line
from collector.kraken.times import format_time
from collector.settings import load_settings
from collector.storage.database import connect
from collector.storage.history import Book, NoBook, PriceLevel, book_at


@told_in_one_line
def book(pair: str, at: str, levels: int | None = None, *, as_json: bool = False) -> int:
    """Print the book of `pair` at the time `at`: all levels, or the best `levels` (1 or more) of each side.

    A time without a zone is UTC. Returns the exit status.
    """
    symbol, moment = read_pair("PAIR", pair), read_time("--at", at)
    settings = load_settings()
    connection = connect(settings.database_url.get_secret_value(), application_name="collector: book")
    try:
        found = book_at(connection, symbol, moment, levels)
    except NoBook as error:
        print(error, file=sys.stderr)
        return exit_status.FOUND_WRONG
    finally:
        connection.close()
    if as_json:
        print(_json(found))
    else:
        Console().print(_table(found))
    return exit_status.DONE


def _digits(number: Decimal) -> str:
    """All digits in plain notation: `str` would write a small size as 1E-8."""
    return f"{number:f}"


def _json(found: Book) -> str:
    """One JSON object on one line, written by hand since no JSON library keeps the digits of a number."""
    return (
        f'{{"pair":"{found.pair}","at":"{format_time(found.at)}",'
        f'"bids":{_json_levels(found.bids)},"asks":{_json_levels(found.asks)}}}'
    )


def _json_levels(levels: list[PriceLevel]) -> str:
    return "[" + ",".join(f"[{_digits(level.price)},{_digits(level.size)}]" for level in levels) + "]"


def _table(found: Book) -> Table:
    table = Table(title=f"{found.pair} at {format_time(found.at)}")
    for heading, style in (("size", "green"), ("bid", "bold green"), ("ask", "bold red"), ("size", "red")):
        # A narrow terminal folds a number; it must never lose digits.
        table.add_column(heading, style=style, justify="right", overflow="fold")
    for bid, ask in zip_longest(found.bids, found.asks):
        bid_cells = ("", "") if bid is None else (_digits(bid.size), _digits(bid.price))
        ask_cells = ("", "") if ask is None else (_digits(ask.price), _digits(ask.size))
        table.add_row(*bid_cells, *ask_cells)
    return table
