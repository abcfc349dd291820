"""Collect live market data into a PostgreSQL of the project's own, until Ctrl-C.

Where Kraken is out of reach, the collector collects a simulated market instead, into a database and a spool of its
own: simulated rows never mix with real ones. What was collected stays for the next start, under `.dev/`.

This process alone answers to signals. Its children run in sessions of their own, so that Ctrl-C, which a terminal
sends to every process in its foreground, stops them in order: the collector, which then writes what it holds, the
simulated market, the dashboard, PostgreSQL.
"""

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import psycopg
import trio
from embedded import (
    POLL_INTERVAL,
    EmbeddedPostgres,
    can_be_reached_by_others,
    free_port,
    postgres_programs,
    stop_with_parent,
)
from psycopg import sql

PROJECT = Path(__file__).resolve().parent.parent
KRAKEN_HOST, KRAKEN_PORT = "ws.kraken.com", 443
KRAKEN_URLS = {"KRAKEN_WS_URL": "wss://ws.kraken.com/v2", "KRAKEN_REST_URL": "https://api.kraken.com"}
REACH_TIMEOUT = 5  # seconds for address, TCP and TLS together; a usable line needs less than one
POSTGRES_PORT = 54320  # the same at each start where it is free, so that a client's saved connection goes on working
SIMULATOR_START_TIMEOUT = 20  # seconds; it imports the collector and listens, about one on an idle machine
COLLECTOR_STOP_TIMEOUT = 9  # seconds; the collector itself gives up what is left to do after 8
SIMULATOR_STOP_TIMEOUT = 5  # seconds; it holds nothing that could be lost, and may be busy
DASHBOARD_PORT = 8000  # or another where it is taken
DASHBOARD_START_TIMEOUT = 20  # seconds; it imports what serves it and listens, about one on an idle machine
DASHBOARD_STOP_TIMEOUT = 3  # seconds; it ends what it serves within one


class Failed(Exception):  # noqa: N818 - named by what happened, as the field does
    """What was asked for did not happen; the text says why. Exit status 1."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the project's lock, which the kernel gives back when this process ends, however it ends.

    Raises:
        Failed: another holds it.
    """
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Failed(f"scripts/dev.sh already runs in this project, as process {lock.read().strip()}.") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def postgres_folder(folder: Path) -> Path:
    """Where PostgreSQL's data goes: `folder`, or for a root whose project lies in a private home, outside of it.

    PostgreSQL does not run as root, and a private home should not be opened to the user that it runs as.

    Raises:
        Failed: someone else made the folder outside.
    """
    if os.geteuid() != 0 or can_be_reached_by_others(folder):
        return folder
    name = hashlib.sha256(bytes(PROJECT)).hexdigest()[:12]
    outside = Path("/var/tmp") / f"kraken-collector-{name}"  # noqa: S108 - its owner is checked
    outside.mkdir(mode=0o755, exist_ok=True)
    status = outside.lstat()
    if outside.is_symlink() or status.st_uid != 0:
        raise Failed(f"{outside} belongs to another user. Remove it, then try again.")
    return outside


def ensure_database(server: EmbeddedPostgres, name: str) -> str:
    """Create the database if this is its first time, and return its address."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.url(name)


async def why_kraken_is_out_of_reach() -> str | None:
    """Try to reach Kraken's WebSocket server; return what went wrong, None if nothing did."""
    try:
        with trio.fail_after(REACH_TIMEOUT):
            stream = await trio.open_ssl_over_tcp_stream(KRAKEN_HOST, KRAKEN_PORT)
            try:
                await stream.do_handshake()
            finally:
                await trio.aclose_forcefully(stream)
    except trio.TooSlowError:
        return f"no answer within {REACH_TIMEOUT} s"
    except (OSError, trio.BrokenResourceError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
        return str(cause)
    return None


def start(command: list[str], environment: dict[str, str], output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start `python -m collector …` in a session of its own; it ends with this process."""
    return subprocess.Popen(
        [sys.executable, "-m", "collector", *command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        # Killed rather than asked, so that the next start does not meet one that still ends and holds the spool. To
        # the kernel the parent is the thread that starts it: Trio's own would start it from one that ends soon.
        preexec_fn=partial(stop_with_parent, signal.SIGKILL),  # noqa: PLW1509 - it takes no lock of another thread's
    )


async def one_has_ended(*processes: subprocess.Popen[bytes]) -> None:
    """Wait until one of some children has ended."""
    while all(process.poll() is None for process in processes):  # noqa: ASYNC110 - it has no event to wait for
        await trio.sleep(POLL_INTERVAL)


async def stop(process: subprocess.Popen[bytes], name: str, *, within: float) -> None:
    """Ask a child to end, unless it has ended by itself.

    Raises:
        Failed: it did not end in time and was killed, or ended with another status than 0.
    """
    if process.poll() is not None:
        return
    process.terminate()
    with trio.move_on_after(within, shield=True):
        await one_has_ended(process)
        if process.returncode != 0:
            raise Failed(f"The {name} was asked to stop and ended with status {process.returncode}.")
        return
    process.kill()
    process.wait()
    raise Failed(f"The {name} did not stop within {within} s and was killed.")


@asynccontextmanager
async def simulated_market(log: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """Serve a simulated market; the value is its process, and the settings by which the collector finds it.

    Raises:
        Failed: it did not start.
    """
    with log.open("wb") as output:
        process = start(["simulate", "--port", str(free_port())], {}, output)
    try:
        with trio.move_on_after(SIMULATOR_START_TIMEOUT):
            while len(printed_settings(log)) < len(KRAKEN_URLS) and process.poll() is None:  # noqa: ASYNC110 - a file
                await trio.sleep(POLL_INTERVAL)
        settings = printed_settings(log)
        if len(settings) < len(KRAKEN_URLS):
            raise Failed(f"The simulated market did not start, see {log}.")
        yield process, settings
    finally:
        await stop(process, "simulated market", within=SIMULATOR_STOP_TIMEOUT)


def printed_settings(log: Path) -> dict[str, str]:
    """What the simulated market says of where it is, in whole lines such as `KRAKEN_WS_URL=ws://127.0.0.1:8080/v2`."""
    return dict(re.findall(rf"^({'|'.join(KRAKEN_URLS)})=(.*)\n", log.read_text(), re.MULTILINE))


@asynccontextmanager
async def dashboard(url: str, log: Path) -> AsyncIterator[str]:
    """Serve the dashboard over a database; the value is its address. Where it ends by itself, collection goes on.

    Raises:
        Failed: it did not start.
    """
    with log.open("wb") as output:
        process = start(["dashboard", "--port", str(free_port(DASHBOARD_PORT))], {"DATABASE_URL": url}, output)
    try:
        with trio.move_on_after(DASHBOARD_START_TIMEOUT):
            while not printed_dashboard(log) and process.poll() is None:  # noqa: ASYNC110 - a file
                await trio.sleep(POLL_INTERVAL)
        address = printed_dashboard(log)
        if not address:
            raise Failed(f"The dashboard did not start, see {log}.")
        yield address
    finally:
        await stop(process, "dashboard", within=DASHBOARD_STOP_TIMEOUT)


def printed_dashboard(log: Path) -> str:
    """What the dashboard says of where it is; empty before it does."""
    return "".join(re.findall(r"^The dashboard is at (http://.+)\n", log.read_text(), re.MULTILINE))


async def collect(environment: dict[str, str], *needed: subprocess.Popen[bytes]) -> int:
    """Run the collector until it ends by itself, or this task is cancelled; return its exit status.

    Raises:
        Failed: a child that the collector needs has ended.
    """
    process = start(["run", "--live"], environment)
    try:
        await one_has_ended(process, *needed)
        if process.poll() is None:
            raise Failed("The simulated market has ended by itself, see its log.")
        return process.returncode
    finally:
        await stop(process, "collector", within=COLLECTOR_STOP_TIMEOUT)


def tell_where(url: str, page: str) -> None:
    """Print where the dashboard is, and how to look at the rows with psql, the wheel's where the machine has none."""
    psql = "psql" if shutil.which("psql") else shlex.quote(str(postgres_programs() / "bin" / "psql"))
    print(f"\nThe dashboard is at  {page}\nThe rows are at      {psql} '{url}'\nStop with Ctrl-C.\n", flush=True)


async def collect_what_can_be_reached(server: EmbeddedPostgres, folder: Path) -> int:
    """Run the collector on Kraken's market, or on a simulated one; return its exit status."""
    reason = await why_kraken_is_out_of_reach()
    name = "kraken" if reason is None else "simulated"
    url = ensure_database(server, name)
    environment = {"DATABASE_URL": url, "SPOOL_DIR": str(folder / f"spool-{name}")}
    if reason is not None:
        print(f"Kraken is out of reach ({KRAKEN_HOST}: {reason}): this collects a simulated market instead.")
    async with dashboard(url, folder / "dashboard.log") as page:
        if reason is None:
            tell_where(url, page)
            return await collect(environment | KRAKEN_URLS)
        async with simulated_market(folder / "simulator.log") as (market, settings):
            tell_where(url, page)
            return await collect(environment | settings, market)


async def run(folder: Path) -> int:
    """Start what is needed, run the collector, and stop everything in order; return the exit status."""
    status = 0  # that of being asked to stop
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:

        async def stop_on_signal(scope: trio.CancelScope) -> None:
            async for _ in signals:  # to the end: a signal while stopping changes nothing
                scope.cancel()

        server = EmbeddedPostgres(postgres_folder(folder) / "postgres", free_port(POSTGRES_PORT))
        try:
            server.start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop_on_signal, nursery.cancel_scope)
                status = await collect_what_can_be_reached(server, folder)
                nursery.cancel_scope.cancel()
        finally:
            server.stop()
    return status


def main() -> int:
    """Run the script; returns its exit status."""
    os.chdir(PROJECT)
    folder = PROJECT / ".dev"
    folder.mkdir(exist_ok=True)
    status = 1
    try:
        with only_one(folder):
            status = trio.run(run, folder)
    except* Failed as failures:
        for failure in failures.exceptions:
            print(failure, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
