"""What can be exported: each dataset's channel, its options and how its rows are read."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

from collector import history
from collector.history import Rows
from collector.history.book_rows import OnMissing
from collector.storage.database import Connection

NAMES = ("trades", "book", "candles", "book-levels", "book-top")

Reader: TypeAlias = Callable[[Connection, str, datetime, datetime, OnMissing], Rows[Any]]


class Dataset(NamedTuple):
    """A kind of file.

    Attributes:
        name: what a person calls it, and its folder.
        channel: whose coverage says how complete it is.
        options: what its rows depend on beside pair and time, as texts that tell it.
        read: the rows of a pair from an aware time up to before another.

    """

    name: str
    channel: Literal["book", "trade"]
    options: Mapping[str, str]
    read: Reader


def make_datasets(*, width: timedelta, levels: int, every: timedelta) -> dict[str, Dataset]:
    """Every dataset, by name: candles of a `width`, samples of the best `levels` of a book, taken `every` so long."""
    datasets = (
        Dataset(
            "trades",
            "trade",
            {},
            lambda connection, pair, since, until, _: history.trades(connection, pair, since, until),
        ),
        Dataset(
            "book",
            "book",
            {},
            lambda connection, pair, since, until, on_missing: history.updates(
                connection, pair, since, until, on_missing=on_missing
            ),
        ),
        Dataset(
            "candles",
            "trade",
            {"width": _seconds(width)},
            lambda connection, pair, since, until, _: history.candles(connection, pair, width, since, until),
        ),
        Dataset(
            "book-levels",
            "book",
            {},
            lambda connection, pair, since, until, on_missing: history.levels(
                connection, pair, since, until, on_missing=on_missing
            ),
        ),
        Dataset(
            "book-top",
            "book",
            {"levels": str(levels), "every": _seconds(every)},
            lambda connection, pair, since, until, on_missing: history.top(
                connection, pair, every, levels, since, until, on_missing=on_missing
            ),
        ),
    )
    return {dataset.name: dataset for dataset in datasets}


def _seconds(length: timedelta) -> str:
    return f"{length.total_seconds():.10g}s"
