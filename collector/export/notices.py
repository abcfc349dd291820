"""What a person should know of an export's data: times that nobody watched, and books to doubt."""

from collections.abc import Iterator, Sequence

from collector.export.datasets import Dataset
from collector.export.document import Covered, Gap, covered_parts, gaps
from collector.history.chains import runs_in
from collector.history.spans import Span
from collector.kraken.orderbook import CHECKSUM_LEVELS
from collector.storage.database import Connection
from collector.storage.stored_rows import Window, rows_without_chain
from collector.verification.findings import counted

GAPS_TOLD = 5  # of each pair and channel; the coverage in the files tells all of them


def notices(connection: Connection, datasets: Sequence[Dataset], pairs: Sequence[str], span: Span) -> Iterator[str]:
    """A line for each, by pair and channel."""
    channels = sorted({dataset.channel for dataset in datasets})
    for pair in pairs:
        runs = runs_in(connection, pair, span)
        for channel in channels:
            parts = covered_parts(runs, channel, span)
            yield from _gap_notices(f"{pair}, {channel}", gaps(parts, span), channel)
            yield from _audit_notices(f"{pair}, {channel}", parts)
    if "book" in channels:
        for pair, count in rows_without_chain(connection, Window(*span), pairs).items():
            yield f"{pair}, book: not taken: {counted(count, 'row')} of an earlier collector, which nothing proves"


def _gap_notices(subject: str, found: Sequence[Gap], channel: str) -> Iterator[str]:
    repaired = "; trades of that time are those that were fetched later" if channel == "trade" else ""
    for gap in found[:GAPS_TOLD]:
        reason = "" if gap.reason is None else f" ({gap.reason})"
        yield f"{subject}: not watched from {gap.since} to {gap.until}{reason}{repaired}"
    if len(found) > GAPS_TOLD:
        yield f"{subject}: not watched {len(found) - GAPS_TOLD} more times, as the coverage in the files tells"


def _audit_notices(subject: str, parts: Sequence[Covered]) -> Iterator[str]:
    for part in parts:
        if part.suspect_since is not None:
            begin = max(part.since, part.suspect_since)
            yield (
                f"{subject}: from {begin} to {part.until} the book may be wrong below its {CHECKSUM_LEVELS} best"
                " levels, an audit failed"
            )
