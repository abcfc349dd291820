"""The `dashboard` command: where it listens, what it refuses, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from collecting import DEADLINE, EXIT_DEADLINE, clean_environment
from embedded import free_port

from collector.commands import dashboard as module
from collector.commands.dashboard import dashboard

URL = "postgresql://postgres:hunter2@127.0.0.1:1/nowhere"
TOKEN = "a secret of some length"


class NotInstalled:
    """Makes Python find the packages of the extra no more."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name in module.PACKAGES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def running(directory: Path, *arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The command as a process of its own, and its log, once it listens."""
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "collector", "dashboard", *arguments],
            cwd=directory,
            env=clean_environment() | {"DATABASE_URL": URL} | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + DEADLINE
        while "The dashboard is at " not in log.read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield process, log
    finally:
        process.kill()
        process.wait()


def status_of(url: str) -> int:
    """The status of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_listens_at_the_port_of_the_environment_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """Prevents a host that gives a port from finding nothing there, and a deploy that has to kill it."""
    port = free_port()
    with running(tmp_path, PORT=str(port)) as (process, log):
        assert log.read_text() == f"The dashboard is at http://127.0.0.1:{port}/\n"
        assert status_of(f"http://127.0.0.1:{port}/") == 200
        assert status_of(f"http://127.0.0.1:{port}/api/pairs") == 503, "it runs while the database does not"
        process.send_signal(signal.SIGTERM)
        assert process.wait(EXIT_DEADLINE) == 0
        assert "hunter2" not in log.read_text()
        assert "Traceback" not in log.read_text()


def test_token_opens_it_and_is_never_logged(tmp_path: Path) -> None:
    """Prevents a dashboard on a network that anyone can read, and a log that gives the token away."""
    with running(tmp_path, "--host", "0.0.0.0", "--port", "0", DASHBOARD_TOKEN=TOKEN) as (process, log):
        port = log.read_text().partition("http://0.0.0.0:")[2].partition("/")[0]
        page = f"http://127.0.0.1:{port}"
        assert status_of(f"{page}/") == 401
        assert status_of(f"{page}/?token=wrong") == 401
        asked = urllib.request.Request(f"{page}/", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(asked, timeout=DEADLINE) as answer:
            assert answer.status == 200
        assert status_of(f"{page}/?token={TOKEN.replace(' ', '%20')}") == 401, "the cookie was not kept"
        process.send_signal(signal.SIGINT)
        assert process.wait(EXIT_DEADLINE) == 0
        assert TOKEN not in log.read_text()
        assert TOKEN.replace(" ", "%20") not in log.read_text()


@pytest.fixture
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_off_loopback_it_wants_a_token(capsys: pytest.CaptureFixture[str], host: str) -> None:
    """Prevents a market and its gaps from being open to a network by an option."""
    assert dashboard(0, host) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("DASHBOARD_TOKEN: it is not set")


@pytest.mark.usefixtures("_settings")
def test_address_that_cannot_be_had_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a traceback as the answer to a port that is taken."""
    monkeypatch.setattr(module, "configure_logs", lambda _: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert dashboard(port) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"cannot listen at 127.0.0.1, port {port}: Address already in use; ")


@pytest.mark.usefixtures("_settings")
def test_missing_extra_is_told_with_what_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a traceback as the answer to an optional extra that is not installed."""
    for name in [name for name in sys.modules if name.startswith(("collector.dashboard", "hypercorn", "quart"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled, *sys.meta_path])
    assert dashboard(0) == 2
    assert capsys.readouterr().err == (
        "The dashboard needs packages that are not installed; install them with:"
        " python -m pip install hypercorn quart quart-trio\n"
    )


def test_worker_and_command_line_do_without_the_extra() -> None:
    """Prevents a collector that does not start where the dashboard's packages are not installed."""
    code = "import sys, json, collector.cli, collector.commands.run; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(json.loads(found.stdout))
    assert "collector.commands.dashboard" in loaded
    assert not loaded & {"hypercorn", "quart", "quart_trio", "werkzeug", "collector.dashboard"}
