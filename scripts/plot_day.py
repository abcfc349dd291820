"""Plot a day of a pair: its price, how much was on offer at which price, and when nobody was watching.

    PYTHONPATH=. .venv/bin/python scripts/plot_day.py BTC/USD 2026-11-23 day.png

Reads the database of DATABASE_URL through `collector.history`, of which it is an example. Needs matplotlib. Here, and
only here, prices become floats: no picture shows their last digits.
"""

import argparse
import sys
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from collector import history
from collector.commands.arguments import WrongUsage, read_pair, read_time, told_in_one_line
from collector.exit_status import DONE

COLUMNS = 720  # samples in the picture's width: one for each 2 minutes of a whole day
ROWS = 240  # steps of the price in its height
LEVELS = 1000  # of each side: all that are ever collected
MARGIN = 0.25  # how much of the day's range of prices is shown above and below it
ONE_DAY = timedelta(days=1)
SHORTEST_STEP = timedelta(seconds=1)
GAP_COLOUR = "#d9d9d9"


class Period(NamedTuple):
    """A part of a day, sampled each `step`."""

    since: datetime
    until: datetime
    step: timedelta

    @property
    def edges(self) -> list[datetime]:
        """Where the columns of the picture begin and end."""
        count = -(-(self.until - self.since) // self.step)
        return [self.since + number * self.step for number in range(count + 1)]


@told_in_one_line
def plot_day(pair: str, day: str, picture: Path) -> int:
    """Plot what of a day (in UTC) was watched; return the exit status."""
    symbol, begin = read_pair("PAIR", pair), read_time("DAY", day)
    midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    with closing(history.connect()) as connection:
        runs = [
            run for run in history.coverage(connection, symbol, midnight, midnight + ONE_DAY) if run.channel == "book"
        ]
        if not runs:
            raise WrongUsage(f"nobody watched the book of {symbol} on {midnight.date()}")
        since = max(midnight, min(run.started_at for run in runs))
        until = min(midnight + ONE_DAY, max(run.last_at for run in runs))
        period = Period(since, until, max(SHORTEST_STEP, (until - since) / COLUMNS))
        candles = list(history.candles(connection, symbol, period.step, since, until))
        prices = [float(price) for candle in candles for price in (candle.low, candle.high)]
        if not prices:
            raise WrongUsage(f"no trade of {symbol} is stored from {since} to {until}")
        reach = max(max(prices) - min(prices), max(prices) / ROWS) * MARGIN
        scale = np.linspace(min(prices) - reach, max(prices) + reach, ROWS + 1)
        samples = history.top(connection, symbol, period.step, LEVELS, since, until)
        depth = depth_map(samples, period, scale)
    figure = Figure(figsize=(14, 7), layout="constrained")
    axes = figure.add_subplot()
    draw_depth(figure, axes, period, scale, depth)
    draw_price(axes, candles, runs, period)
    draw_gaps(axes, runs, period)
    axes.set_title(f"{symbol}, {midnight.date()} (UTC)")
    axes.set_ylabel(f"price in {symbol.partition('/')[2]}")
    axes.set_xlim(since, until)
    axes.set_ylim(scale[0], scale[-1])
    locator = AutoDateLocator(tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.legend(loc="upper left")
    figure.savefig(picture, dpi=120)
    print(f"{picture}: {len(candles)} candles of {period.step}, {len(runs)} runs of the book")
    return DONE


def depth_map(samples: Iterable[history.TopOfBook], period: Period, scale: np.ndarray) -> np.ndarray:
    """How much was on offer, in the base currency, by price (row) and time (column); NaN where nothing was."""
    depth = np.zeros((len(scale) - 1, len(period.edges) - 1))
    for sample in samples:
        column = (sample.event_time - period.since) // period.step
        levels = np.array([(float(level.price), float(level.size)) for level in (*sample.bids, *sample.asks)])
        if len(levels):
            depth[:, column], _ = np.histogram(levels[:, 0], bins=scale, weights=levels[:, 1])
    depth[depth == 0] = np.nan
    return depth


def draw_depth(figure: Figure, axes: Axes, period: Period, scale: np.ndarray, depth: np.ndarray) -> None:
    """Draw the heat map and its key, by the logarithm: most levels are small."""
    if np.isnan(depth).all():
        return
    low, high = np.nanpercentile(depth, (5, 99.5))
    norm = LogNorm(vmin=low, vmax=max(high, low * 10))
    mesh = axes.pcolormesh(period.edges, scale, depth, cmap="viridis", norm=norm, rasterized=True)
    figure.colorbar(mesh, ax=axes, label="on offer at a price, in the base currency", pad=0.01)


def draw_price(axes: Axes, candles: list[history.Candle], runs: list[history.Run], period: Period) -> None:
    """Draw the last price of each step, and from the lowest to the highest; a gap is not bridged."""
    times = [candle.bucket + period.step / 2 for candle in candles]
    low, high, last = ([float(getattr(candle, name)) for candle in candles] for name in ("low", "high", "close"))
    axes.vlines(times, low, high, color="#ff6f61", linewidth=1)
    line = sorted([*zip(times, last, strict=True), *((until, np.nan) for _, until in gaps(runs))])
    axes.plot(*zip(*line, strict=True), color="#ff6f61", linewidth=1.2, label="price of the trades")


def draw_gaps(axes: Axes, runs: list[history.Run], period: Period) -> None:
    """Shade the times that no run covers."""
    label: str | None = "nobody was watching"
    for since, until in gaps(runs):
        axes.axvspan(max(since, period.since), min(until, period.until), color=GAP_COLOUR, label=label)
        label = None  # one entry in the legend


def gaps(runs: list[history.Run]) -> list[tuple[datetime, datetime]]:
    """The times between runs; runs may overlap."""
    stretches: list[history.Run] = []
    for run in sorted(runs, key=lambda run: run.started_at):
        if not stretches or run.last_at > stretches[-1].last_at:
            stretches.append(run)
    return [
        (before.last_at, after.started_at) for before, after in pairwise(stretches) if before.last_at < after.started_at
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Plot a day of a pair.")
    parser.add_argument("pair", help="Kraken's symbol, such as BTC/USD")
    parser.add_argument("day", help="such as 2026-11-23, in UTC")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    given = parser.parse_args()
    mpl.use("agg")  # no window
    sys.exit(plot_day(given.pair, given.day, given.picture))
