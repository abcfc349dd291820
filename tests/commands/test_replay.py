"""The `replay` command: settings that lead to it, and one clear line for whatever a person can mend."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from collecting import clean_environment
from conftest import new_database
from embedded import EmbeddedPostgres
from replaying import store_tape
from trio_websocket import open_websocket_url

from collector.commands.replay import replay

DEADLINE = 30  # seconds
RANGE = ("2023-11-14", "2023-11-15")


@pytest.fixture(scope="module")
def market(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """A database with a market of some seconds, and a hole in it."""
    with new_database(postgres_server, "replayed_by_command", migrated_template) as url:
        yield store_tape(url, ["BTC/USD"], 25, count=400).url


@pytest.fixture
def stored(market: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, and the settings name it."""
    monkeypatch.setenv("DATABASE_URL", market)
    return market


@contextmanager
def started(url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "collector", "replay", "--since", RANGE[0], "--until", RANGE[1], *arguments],
        env=clean_environment() | {"DATABASE_URL": url, "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_it_prints_the_settings_that_lead_to_it_and_ends_cleanly(stored: str) -> None:
    """Prevents settings that cannot be pasted into a .env, and a Ctrl-C that ends with a traceback."""
    with started(stored, "--port", "0", "--speed", "max") as process:
        assert process.stdout is not None
        settings = dict(process.stdout.readline().strip().split("=", 1) for _ in range(2))
        assert list(settings) == ["KRAKEN_WS_URL", "KRAKEN_REST_URL"]
        async with open_websocket_url(settings["KRAKEN_WS_URL"]) as client:
            assert '"channel":"status"' in await client.get_message()
            await client.send_message(
                '{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":10}}'
            )
            while '"type":"update"' not in await client.get_message():
                pass
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=DEADLINE)
    assert (process.returncode, rest) == (0, "")
    assert re.fullmatch(
        r"Replaying from 2023-11-14T22:13:20\.000000Z up to 2023-11-14T22:14:\d\d\.\d+Z:\n"
        r"  BTC/USD: a book of depth 10, 25 in 2 pieces, trades in 2 pieces\n",
        told,
    )


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ({"since": "yesterday"}, 2, r"--since: got 'yesterday'; it takes a time such as 2026-01-31T12:00:00Z"),
        ({"until": "2023-11-14"}, 2, r"--until: got '2023-11-14'; it takes a time after that of --since, '2023-11-14'"),
        ({"speed": "fast"}, 2, r"--speed: got 'fast'; it takes a number such as 1 or 10, or max"),
        ({"speed": "0"}, 2, r"--speed: got '0'; .*"),
        ({"speed": "inf"}, 2, r"--speed: got 'inf'; .*"),
        ({"pairs": "BTC"}, 2, r"--pairs: got 'BTC'; it takes a comma list of symbols, .*"),
        ({"pairs": "BTC/EUR"}, 2, r"--pairs: got 'BTC/EUR', which was never watched; .*: BTC/USD"),
        (
            {"since": "2024-01-01", "until": "2024-02-01"},
            1,
            r"Nothing was watched from 2024-01-01 00:00:00 to 2024-02-01 00:00:00; coverage goes from 2023-11-14 22.*",
        ),
    ],
)
def test_what_a_person_can_mend_is_told_in_one_line(
    arguments: dict[str, str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a replay of nothing, which a bot takes for a quiet market."""
    assert replay(**{"since": RANGE[0], "until": RANGE[1]} | arguments, port=0) == status
    assert re.fullmatch(told + r"\n", capsys.readouterr().err)


def test_a_database_without_the_tables_is_told(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a traceback where the wrong database is named."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert replay(*RANGE) == 2
    assert "run its migrate command" in capsys.readouterr().err
