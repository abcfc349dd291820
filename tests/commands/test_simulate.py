import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from trio_websocket import open_websocket_url

ROOT = Path(__file__).parent.parent.parent
SIMULATE = (
    "import sys; from collector.commands.simulate import simulate; sys.exit(simulate(int(sys.argv[1]), ['ADA/USD']))"
)
DEADLINE = 30  # seconds


def start(port: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SIMULATE, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_prints_the_settings_that_lead_to_it_and_ends_cleanly(number: signal.Signals) -> None:
    """What is printed cannot be pasted into a .env, or Ctrl-C ends with a traceback."""
    with start(0) as process:
        try:
            assert process.stdout is not None
            settings = dict(process.stdout.readline().strip().split("=", 1) for _ in range(2))
            assert list(settings) == ["KRAKEN_WS_URL", "KRAKEN_REST_URL"]
            async with open_websocket_url(settings["KRAKEN_WS_URL"]) as client:
                assert '"channel":"status"' in await client.get_message()
                assert settings["KRAKEN_REST_URL"].startswith("http://127.0.0.1:")
            process.send_signal(number)
            rest, errors = process.communicate(timeout=DEADLINE)
            assert (process.returncode, rest, errors) == (0, "", "")
        finally:
            process.kill()


def test_a_port_in_use_is_told_in_one_line() -> None:
    """A second simulation dies with a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with start(port) as process:
            output, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, output) == (2, "")
    assert errors == f"port {port} cannot be used: Address already in use\n"
