"""scripts/dev.py: what it starts, what it tells, and that nothing of it is left."""

import json
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import dev
import psutil
import psycopg
import pytest
import trio
import trustme
from embedded import free_port, open_temporary_folder

PROJECT = Path(__file__).parent.parent
START_TIMEOUT = 60  # seconds, on a machine that does much else
STOP_TIMEOUT = 10  # seconds: what a person waits after Ctrl-C
# Kraken is out of reach for every test, wherever it runs.
RUN = "import dev, sys; dev.KRAKEN_HOST, dev.KRAKEN_PORT = '127.0.0.1', int(sys.argv[1]); sys.exit(dev.main())"


class Script:
    """A running dev.py over a copy of the project, and what it has printed."""

    def __init__(self, project: Path) -> None:
        self.log = project / "output.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, str(free_port())],
                cwd=project / "scripts",
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_for(self, what: str, found: Callable[[], bool]) -> None:
        """Wait until `found`; fail with what was printed if it takes too long, or the script ends."""
        deadline = time.monotonic() + START_TIMEOUT
        while not found():
            assert time.monotonic() < deadline, f"no {what}:\n{self.log.read_text()}"
            assert self.process.poll() is None, f"ended without {what}:\n{self.log.read_text()}"
            time.sleep(0.05)

    def url(self) -> str:
        """The address of the database that it prints."""
        self.wait_for("address", lambda: "postgresql://" in self.log.read_text())
        return next(part for part in self.log.read_text().split("'") if part.startswith("postgresql://"))

    def page(self) -> str:
        """The address of the dashboard that it prints."""
        self.wait_for("dashboard", lambda: "psql" in self.log.read_text())
        return next(part for part in self.log.read_text().split() if part.startswith("http://127.0.0.1:"))

    def wait_for_rows(self, url: str, more_than: int = 0) -> int:
        """Wait until the database has rows of both kinds, more than so many; returns how many."""
        count = 0

        def found() -> bool:
            nonlocal count
            try:
                with psycopg.connect(url) as connection:
                    query = "SELECT (SELECT count(*) FROM kraken_orderbook), (SELECT count(*) FROM kraken_trades)"
                    row = connection.execute(query).fetchone()
            except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
                return False
            assert row is not None
            count = sum(row)
            return min(row) > 0 and count > more_than

        self.wait_for("rows", found)
        return count

    def family(self) -> list[psutil.Process]:
        """The script and every process below it."""
        script = psutil.Process(self.process.pid)
        return [script, *script.children(recursive=True)]


@pytest.fixture
def project() -> Iterator[Path]:
    """A copy of the project, so that a test never meets the developer's own data."""
    with open_temporary_folder() as folder:
        for part in ("scripts", "collector"):
            shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


@pytest.fixture
def start(project: Path) -> Iterator[Callable[[], Script]]:
    """Start dev.py; whatever still runs at the end is killed."""
    scripts: list[Script] = []

    def start() -> Script:
        scripts.append(Script(project))
        return scripts[-1]

    yield start
    for script in scripts:
        if script.process.poll() is None:
            for process in reversed(script.family()):
                process.kill()
            script.process.wait()


def assert_gone(family: list[psutil.Process]) -> None:
    """Assert that every process of a family ends, or has ended."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while alive := [process for process in family if not has_ended(process)]:
        assert time.monotonic() < deadline, f"{alive} still run"
        time.sleep(0.05)


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has ended; one whose new parent has not asked for its status yet has."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_collects_a_simulated_market_until_ctrl_c(start: Callable[[], Script]) -> None:
    """Prevents a first start that needs more than one command, or leaves a process after Ctrl-C."""
    script = start()
    url = script.url()
    assert url.endswith("/simulated")
    script.wait_for_rows(url)
    assert "Kraken is out of reach" in script.log.read_text()
    with urllib.request.urlopen(f"{script.page()}api/pairs", timeout=START_TIMEOUT) as answer:
        assert json.load(answer)["pairs"] == ["BTC/USD"]

    second = start()
    assert second.process.wait(START_TIMEOUT) == 1
    assert f"already runs in this project, as process {script.process.pid}" in second.log.read_text()

    family = script.family()
    assert len(family) > 4  # the script, PostgreSQL with its workers, the market, the collector, the dashboard
    signal_group(script.process.pid, signal.SIGINT)
    assert script.process.wait(STOP_TIMEOUT) == 0
    assert_gone(family)
    assert "Traceback" not in script.log.read_text()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000/", "http://127.0.0.1:8000/?token=… (your token)"])
def test_dashboard_is_found_with_and_without_a_token(tmp_path: Path, address: str) -> None:
    """Prevents a DASHBOARD_TOKEN in a .env from keeping everything from starting."""
    log = tmp_path / "log"
    log.write_text(f"a warning\nThe dashboard is at {address}")
    assert dev.printed_dashboard(log) == "", "the line is not whole yet"
    log.write_text(f"a warning\nThe dashboard is at {address}\n")
    assert dev.printed_dashboard(log) == address


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_killed_script_leaves_no_process_and_its_rows(start: Callable[[], Script]) -> None:
    """Prevents servers that nobody stops, and a next start that fails or begins from nothing."""
    script = start()
    count = script.wait_for_rows(script.url())
    family = script.family()
    script.process.kill()
    script.process.wait()
    assert_gone(family[1:])

    script = start()
    script.wait_for_rows(script.url(), more_than=count)
    family = script.family()
    script.process.send_signal(signal.SIGTERM)
    assert script.process.wait(STOP_TIMEOUT) == 0
    assert_gone(family)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal a whole process group, as a terminal does at Ctrl-C."""
    subprocess.run(["kill", f"-{number.value}", "--", f"-{leader}"], check=True)


@pytest.fixture
async def tls_server(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A TLS server on loopback in Kraken's place; the value is the authority to trust."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.do_handshake()
            await stream.receive_some()
        except trio.BrokenResourceError:
            pass  # a client that does not trust the certificate hangs up

    listeners = await nursery.start(trio.serve_ssl_over_tcp, serve, 0, context)
    monkeypatch.setattr(dev, "KRAKEN_HOST", "localhost")
    monkeypatch.setattr(dev, "KRAKEN_PORT", listeners[0].transport_listener.socket.getsockname()[1])
    return authority


async def test_kraken_is_in_reach(tls_server: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a simulated market where Kraken could be had."""
    certificate = tmp_path / "ca.pem"
    tls_server.cert_pem.write_to_path(str(certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert await dev.why_kraken_is_out_of_reach() is None


async def test_server_that_cannot_prove_to_be_kraken_is_out_of_reach(
    tls_server: trustme.CA,
) -> None:
    """Prevents an endless reconnect behind a proxy that puts its own certificate in place of Kraken's."""
    reason = await dev.why_kraken_is_out_of_reach()
    assert reason is not None
    assert "certificate verify failed" in reason


async def test_closed_port_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a traceback as the answer to a firewall."""
    monkeypatch.setattr(dev, "KRAKEN_HOST", "127.0.0.1")
    monkeypatch.setattr(dev, "KRAKEN_PORT", free_port())
    assert await dev.why_kraken_is_out_of_reach() is not None


async def test_silent_server_is_out_of_reach(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a start that waits for ever on a line that swallows everything."""

    async def say_nothing(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    listeners = await nursery.start(trio.serve_tcp, say_nothing, 0)
    monkeypatch.setattr(dev, "KRAKEN_HOST", "127.0.0.1")
    monkeypatch.setattr(dev, "KRAKEN_PORT", listeners[0].socket.getsockname()[1])
    monkeypatch.setattr(dev, "REACH_TIMEOUT", 0.2)
    assert await dev.why_kraken_is_out_of_reach() == "no answer within 0.2 s"
