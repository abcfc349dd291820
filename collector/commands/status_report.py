"""What `status` prints: one screen for a person, from 80 columns on, or one JSON document for a program."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from collector.commands.status_document import AuditResult, CollectorStatus, Document, PairStatus, Unwatched

PAIRS_SHOWN = 20  # in each table, those that need attention first; JSON has all
COLLECTORS_SHOWN = 8  # those that need attention first, likewise
OPEN_GAPS_SHOWN = 6  # when everything stands still, each says the same; JSON has all
GAPS_SHOWN = 5  # the latest of the last day; JSON has all
PAIRS_OF_COLLECTOR = 2  # named, so that a person knows which it is; likewise
PAIRS_NAMED = 8  # of those that are not collected any more; likewise
EIGHTHS = " ▁▂▃▄▅▆▇█"  # a cell's height is the share that was seen
NEVER_SEEN, NOT_YET = "·", " "
THOUSANDS = ("", "k", "M", "G")
THOUSAND = 1000
MINUTE, HOUR, DAY = 60, 3600, 86_400  # seconds
WHOLE = 1.0
EXACT_BELOW = 10  # in whatever unit: a larger number is well told without a decimal

GOOD, PARTLY, BAD, FAINT = "green", "yellow", "bold red", "dim"


def status_json(document: Document) -> str:
    """One JSON document, whose fields are those of `Document`; prices have every digit."""
    return msgspec.json.encode(document).decode()


def print_status(document: Document, console: Console) -> None:
    """Tables of now, of the last 24 hours and of the collectors, and a line for all else that one wants to know."""
    console.print(
        f"[bold]Kraken collector[/bold]  {document.origin or 'no feed yet'}  {document.at:%Y-%m-%d %H:%M:%S} UTC"
    )
    if document.pairs:
        pairs = _most_in_need(document.pairs)
        console.print("", _now_table(pairs), "", _day_table(document, pairs), "", sep="\n")
        if len(pairs) < len(document.pairs):
            console.print(f"and {len(document.pairs) - len(pairs):,} more pairs, none of them worse; --json tells all")
    if document.collectors:
        console.print(_collectors_table(document), "", sep="\n")
    for line in _lines(document):
        console.print(line)


def _most_in_need(pairs: Sequence[PairStatus]) -> list[PairStatus]:
    """As many as fit on a screen, by name: what is stale or wrong before what is well."""

    def need(pair: PairStatus) -> tuple[bool, bool, int, float]:
        audit_failed = pair.audit is not None and not pair.audit.passed
        return pair.stale, audit_failed, pair.missing_trades + pair.checksum_failures, -(pair.coverage or 0.0)

    return sorted(sorted(pairs, key=need, reverse=True)[:PAIRS_SHOWN], key=lambda pair: pair.pair)


def _now_table(pairs: Sequence[PairStatus]) -> Table:
    table = _table("Now", "Last trade", "Price", "Book age", "Rows/minute", "≈ Rows/hour", "≈ Rows/day")
    for pair in pairs:
        table.add_row(
            Text(pair.pair, style=BAD if pair.stale else ""),
            _ago(pair.last_trade_age),
            "-" if pair.last_price is None else bytes(pair.last_price).decode(),
            Text(_ago(pair.book_age), style=BAD if pair.stale else GOOD),
            *(_short(count) for count in (pair.rows.minute, pair.rows.hour, pair.rows.day)),
        )
    return table


def _day_table(document: Document, pairs: Sequence[PairStatus]) -> Table:
    table = _table("Last 24 hours", "Book seen, by the hour", "", "Gaps", "Missing trades", "Wrong CRC32", "Audit")
    table.columns[1].justify = "left"
    for column in (table.columns[1], table.columns[-1]):
        column.no_wrap = True
    for pair in pairs:
        gaps = sum(gap.pair == pair.pair for gap in (*document.gaps, *document.open_gaps))
        table.add_row(
            pair.pair,
            _bar(pair),
            _percent(pair.coverage),
            _count(gaps, PARTLY),
            _count(pair.missing_trades),
            _count(pair.checksum_failures),
            _audit(pair.audit, document),
        )
    return table


def _collectors_table(document: Document) -> Table:
    table = _table("Collectors", "Pairs", "Rows/s", "Waiting", "Runs for", "", first="Name")
    table.columns[0].no_wrap = False
    table.columns[0].overflow = "fold"
    table.columns[1].justify = "left"

    def need(collector: CollectorStatus) -> tuple[bool, int]:
        return collector.available, -collector.waiting_rows

    shown = sorted(document.collectors, key=need)[:COLLECTORS_SHOWN]
    for collector in sorted(shown, key=lambda collector: collector.name):
        count = len(collector.pairs)
        names = ", ".join(collector.pairs[:PAIRS_OF_COLLECTOR])
        ellipsis = ", …" if count > PAIRS_OF_COLLECTOR else ""
        table.add_row(
            collector.name,
            f"{count:,}: {names}{ellipsis}" if count else "stands by",
            _short(collector.rows_per_second),
            _short(collector.waiting_rows),
            _ago(collector.age),
            Text("") if collector.available else Text("unavailable", style=PARTLY),
        )
    more = len(document.collectors) - len(shown)
    table.caption = f"and {_counted(more, 'more collector')}; --json tells all" if more else None
    table.caption_justify = "left"
    return table


def _table(title: str, *headings: str, first: str = "Pair") -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _bar(pair: PairStatus) -> Text:
    """The last day, the oldest hour first: a cell is full only where nothing at all is missing of it."""
    bar = Text()
    for share in pair.cells:
        if share is None:
            bar.append(NOT_YET)
        elif share == 0:
            bar.append(NEVER_SEEN, style=BAD)
        elif share >= WHOLE:
            bar.append(EIGHTHS[-1], style=GOOD)
        else:
            bar.append(EIGHTHS[max(1, int(share * (len(EIGHTHS) - 1)))], style=PARTLY)
    return bar


def _audit(audit: AuditResult | None, document: Document) -> Text:
    if audit is None:
        return Text("none yet", style=FAINT)
    ago = _ago((document.at - audit.audited_at).total_seconds())
    return Text(f"ok {ago}", style=GOOD) if audit.passed else Text("FAILED", style=BAD)


def _lines(document: Document) -> Iterator[Text]:
    yield from (Text(_open_gap(gap), style=BAD) for gap in document.open_gaps[:OPEN_GAPS_SHOWN])
    if len(document.open_gaps) > OPEN_GAPS_SHOWN:
        yield Text(f"and {len(document.open_gaps) - OPEN_GAPS_SHOWN} more that are not watched; --json tells all", BAD)
    for pair in document.pairs:
        if pair.audit is not None and not pair.audit.passed:
            ago = _ago((document.at - pair.audit.audited_at).total_seconds())
            levels = _counted(pair.audit.differences, "level")
            yield Text(f"{pair.pair} book: an audit {ago} ago found {levels} wrong; kraken_audits has them.", style=BAD)
    if document.gaps:
        yield Text(f"Gaps of the last 24 hours ({len(document.gaps)}):")
        yield from (Text(f"  {_gap(gap)}") for gap in document.gaps[:GAPS_SHOWN])
        if len(document.gaps) > GAPS_SHOWN:
            yield Text(f"  and {len(document.gaps) - GAPS_SHOWN} earlier; --json tells all", style=FAINT)
    yield from _spool_lines(document)
    growth = (
        "too early to tell how it grows"
        if document.bytes_a_day is None
        else (f"growing by {decimal(document.bytes_a_day)} a day")
    )
    yield Text(f"Database: {decimal(document.bytes)}, {growth}.")
    if document.former_pairs:
        names = ", ".join(document.former_pairs[:PAIRS_NAMED])
        more = len(document.former_pairs) - PAIRS_NAMED
        yield Text(f"Stored, but not collected now: {names}{f' and {more} more' if more > 0 else ''}.", style=FAINT)
    yield _verdict(document)


def _spool_lines(document: Document) -> Iterator[Text]:
    shipped = next(iter(document.spools), None)
    if shipped is not None:
        yield Text(
            f"Spool {shipped.spool[:8]}: last shipped {_ago(shipped.age)} ago (segment {shipped.last_segment:,})."
        )
    here = document.backlog
    if here is not None:
        yield Text(f"Spool folder {here.directory}: {_counted(here.segments, 'segment')}, {decimal(here.bytes)}.")
        for folder, files in here.set_apart.items():
            yield Text(f"Set apart in {here.directory}/{folder}: {_counted(files, 'file')}.", style=BAD)


def _verdict(document: Document) -> Text:
    if not document.pairs:
        return Text("STALE: nothing has been collected yet.", style=BAD)
    stale = [pair.pair for pair in document.pairs if pair.stale]
    if stale:
        return Text(f"STALE: nothing for more than {document.stale_after:g} s of {_listed(stale)}.", style=BAD)
    return Text(f"Well: {_counted(len(document.pairs), 'pair')} up to date.", style=f"bold {GOOD}")


def _open_gap(gap: Unwatched) -> str:
    if gap.since is None or gap.seconds is None:
        return f"{gap.pair} {gap.channel}: has never been watched."
    reason = gap.reason or "nobody told why: its collector may be gone, or out of the database's reach"
    return f"{gap.pair} {gap.channel}: not watched since {gap.since:%m-%d %H:%M:%S} ({_ago(gap.seconds)}): {reason}."


def _gap(gap: Unwatched) -> str:
    since = "" if gap.since is None else f"{gap.since:%m-%d %H:%M:%S}"
    return f"{since} {gap.pair} {gap.channel} for {_ago(gap.seconds)}: {gap.reason or 'nobody told why'}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - PAIRS_NAMED
    return ", ".join(names[:PAIRS_NAMED]) + (f" and {more} more" if more > 0 else "")


def _count(count: int, style: str = BAD) -> Text:
    return Text(f"{count:,}", style=style if count else "")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _percent(share: float | None) -> Text:
    """Cut, not rounded: it says 100 only where nothing is missing."""
    if share is None:
        return Text("-")
    return Text(f"{int(share * 10_000) / 100:.2f}%", style=GOOD if share >= WHOLE else PARTLY)


def _short(count: int) -> str:
    """A count in three digits or so: 940, 4.3k, 260k, 6.2M."""
    number, unit = float(count), 0
    while number >= THOUSAND and unit < len(THOUSANDS) - 1:
        number, unit = number / THOUSAND, unit + 1
    if not unit:
        return str(count)
    return f"{number:.1f}{THOUSANDS[unit]}" if number < EXACT_BELOW else f"{number:.0f}{THOUSANDS[unit]}"


def _ago(seconds: float | None) -> str:
    """A length of time in its largest unit."""
    if seconds is None:
        return "never"
    for size, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.1f} s" if seconds < EXACT_BELOW else f"{seconds:.0f} s"
