"""The command line: what each command takes. What a command does is in its own file under `commands`."""

from typing import Annotated

import typer

from collector import exit_status
from collector.commands.migrate import migrate
from collector.commands.run import run
from collector.commands.simulate import DEFAULT_PAIRS, DEFAULT_PORT, DEFAULT_RATE, DEFAULT_SEED, simulate
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
