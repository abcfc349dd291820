"""The live line: what a person who started the collector wants to see of it."""

import sys

import trio

from collector.logs import CLEAR_LINE
from collector.statistics import PairStatistics, Statistics
from collector.storage.spool import Spool

TERMINAL_INTERVAL = 1.0  # seconds; one line that is written over
PLAIN_INTERVAL = 5.0  # seconds; a line each, for a file or a pipe


async def show_live(statistics: Statistics, spool: Spool) -> None:
    """Write the live line to standard output, for ever; the pairs take turns."""
    terminal = sys.stdout.isatty()
    turn, rows, shown_at = 0, statistics.rows, trio.current_time()
    while True:
        await trio.sleep(TERMINAL_INTERVAL if terminal else PLAIN_INTERVAL)
        now = trio.current_time()
        rate = (statistics.rows - rows) / (now - shown_at)
        rows, shown_at = statistics.rows, now
        pairs = sorted(statistics.pairs)
        line = live_line(statistics, spool.waiting_rows, pairs[turn % len(pairs)] if pairs else "no pair", rate)
        turn += 1
        sys.stdout.write(CLEAR_LINE + line if terminal else line + "\n")
        sys.stdout.flush()


def live_line(statistics: Statistics, waiting_rows: int, pair: str, rate: float) -> str:
    """What is known of a pair, and how the collector does."""
    state = statistics.pairs.get(pair, PairStatistics())
    bid, ask, trade = ((digits or b"-").decode() for digits in (state.best_bid, state.best_ask, state.last_trade))
    return (
        f"{pair}  bid {bid}  ask {ask}  last trade {trade}  |  {rate:,.0f} rows/s  {waiting_rows:,} waiting"
        f"  {statistics.desyncs['checksum']} checksum failures"
    )
