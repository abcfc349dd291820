"""The command line: what each command takes. What a command does is in its own file under `commands`."""

from pathlib import Path
from typing import Annotated

import typer

from collector import exit_status
from collector.commands.book import book
from collector.commands.dashboard import DEFAULT_HOST, dashboard
from collector.commands.export import (
    DEFAULT_EVERY,
    DEFAULT_FORMAT,
    DEFAULT_LEVELS,
    DEFAULT_WHAT,
    DEFAULT_WIDTH,
    MOST_LEVELS,
    export,
)
from collector.commands.migrate import migrate
from collector.commands.replay import replay
from collector.commands.run import run
from collector.commands.simulate import DEFAULT_PAIRS, DEFAULT_PORT, DEFAULT_RATE, DEFAULT_SEED, simulate
from collector.commands.status import status
from collector.commands.verify import verify
from collector.kraken.pairs import parse_pairs

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,  # a bug's traceback belongs in a log as it is, without local variables
    help="Collects Kraken's trades and order books into PostgreSQL. Settings come from the environment and .env.",
)


def run_command(arguments: list[str]) -> int:
    """Run a command line; return its exit status."""
    try:
        app(arguments, prog_name="python -m collector")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exit_status.UNUSABLE
    return exit_status.DONE


def _pairs(text: str) -> tuple[str, ...]:
    try:
        return parse_pairs(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}; it takes a comma list of symbols, such as BTC/USD,ETH/EUR") from None


@app.command("run")
def _run(
    *,
    live: Annotated[bool, typer.Option("--live", help="Keep a line up to date that shows what is happening.")] = False,
) -> None:
    """Collect until told to stop; what happens when no command is given."""
    raise typer.Exit(run(live=live))


@app.command("migrate")
def _migrate() -> None:
    """Bring the database's schema up to date."""
    raise typer.Exit(migrate())


@app.command("simulate")
def _simulate(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port on loopback; 0 takes a free one.")
    ] = DEFAULT_PORT,
    pairs: Annotated[str, typer.Option(help="A comma list of symbols.")] = ",".join(DEFAULT_PAIRS),
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = DEFAULT_SEED,
    rate: Annotated[float, typer.Option(min=0.001, help="Book updates a second of the first pair.")] = DEFAULT_RATE,
) -> None:
    """Serve a simulated Kraken on this machine, for a collector to be pointed at."""
    raise typer.Exit(simulate(port, _pairs(pairs), seed, rate))


@app.command("replay")
def _replay(
    since: Annotated[str, typer.Option(help="From this time on, such as 2026-01-31T12:00:00Z.")],
    until: Annotated[str, typer.Option(help="Up to before this time.")],
    pairs: Annotated[
        str | None, typer.Option(help="A comma list of symbols; all that were watched when left out.")
    ] = None,
    speed: Annotated[
        str, typer.Option(help="How many times faster than it was, such as 10; max: as fast as a client reads.")
    ] = "1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port on loopback; 0 takes a free one.")
    ] = DEFAULT_PORT,
    *,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
) -> None:
    """Serve the stored market as a Kraken on this machine, for a bot to be pointed at."""
    raise typer.Exit(replay(since, until, pairs, speed, port, loop=loop))


@app.command("verify")
def _verify(
    pairs: Annotated[
        str | None, typer.Option(help="A comma list of symbols; all that are stored when left out.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="From this time on, such as 2026-01-31T12:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to before this time.")] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="First close the holes that Kraken's REST can close.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")] = False,
) -> None:
    """Check what is stored: trades without holes, books by their checksums, coverage by its rows."""
    raise typer.Exit(verify(pairs, since, until, repair=repair, as_json=as_json))


@app.command("status")
def _status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")] = False,
) -> None:
    """Show on one screen how collecting goes; the exit status is 1 when anything is stale."""
    raise typer.Exit(status(as_json=as_json))


@app.command("book")
def _book(
    pair: Annotated[str, typer.Argument(metavar="PAIR", help="Kraken's symbol, such as BTC/USD.")],
    at: Annotated[str, typer.Option(metavar="TIME", help="Such as 2026-01-31T12:00:00Z; UTC where no zone is named.")],
    levels: Annotated[int | None, typer.Option(min=1, help="The best levels of each side; all when left out.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every digit.")] = False,
) -> None:
    """Show the order book of a pair as it was at a time."""
    raise typer.Exit(book(pair, at, levels, as_json=as_json))


@app.command("export")
def _export(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to; finished files in it are kept.")],
    what: Annotated[
        str, typer.Option(help="A comma list of trades, book, candles, book-levels, book-top.")
    ] = DEFAULT_WHAT,
    format_name: Annotated[str, typer.Option("--format", help="parquet, csv or jsonl.")] = DEFAULT_FORMAT,
    pairs: Annotated[
        str | None, typer.Option(help="A comma list of symbols; all that are stored when left out.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="From this time on, such as 2026-01-31T12:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to before this time.")] = None,
    width: Annotated[str, typer.Option(help="The width of candles, such as 1s, 5m, 1h or 1d.")] = DEFAULT_WIDTH,
    levels: Annotated[
        int, typer.Option(min=1, max=MOST_LEVELS, help="The levels of each side in book-top.")
    ] = DEFAULT_LEVELS,
    every: Annotated[str, typer.Option(help="The time between two samples of book-top.")] = DEFAULT_EVERY,
) -> None:
    """Write what is stored to files, a day of a pair in each, for other tools to open."""
    status = export(
        out,
        what=what,
        format_name=format_name,
        pairs=pairs,
        since=since,
        until=until,
        width=width,
        levels=levels,
        every=every,
    )
    raise typer.Exit(status)


@app.command("dashboard")
def _dashboard(
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Instead of PORT; 0 takes a free one.")] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at; off this machine it wants DASHBOARD_TOKEN.")
    ] = DEFAULT_HOST,
) -> None:
    """Serve a web page that shows the market as it is stored, live and in the past."""
    raise typer.Exit(dashboard(port, host))
