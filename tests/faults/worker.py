"""A collector as a process of its own: started, signalled, watched, and its log read."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import trio

PROJECT = Path(__file__).parent.parent.parent
LAUNCHER = Path(__file__).parent / "launcher.py"
EXIT_DEADLINE = 10.0  # seconds from a signal to the exit: what the collector promises
POLL_INTERVAL = 0.05
LOG_TAIL = 4000  # characters of a log that a failure shows
KB_PER_MB = 1024
BASE_ENVIRONMENT = {
    "PYTHONPATH": str(PROJECT),
    "LANG": "C.UTF-8",
    "LOG_LEVEL": "debug",  # at which no event is left out as a repetition, so that tests can wait for one more of it
}


class Log:
    """The log of one collector, through all of its processes; it is read on as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._events: dict[str, list[dict[str, object]]] = {}

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text() if self.path.exists() else ""

    def events(self, name: str, **fields: object) -> list[dict[str, object]]:
        """The events of a name that have these fields."""
        self._read_on()
        return [event for event in self._events.get(name, []) if fields.items() <= event.items()]

    def _read_on(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole + newline)
        for line in whole.splitlines():
            if line.startswith(b"{"):
                event = json.loads(line)
                self._events.setdefault(event["event"], []).append(event)


class Worker:
    """A running collector. `resident` and `peak` are its resident set now and at its largest, in MB.

    `started_at` is in UTC. `may_end` is set once it was told to end.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Log) -> None:
        self.log = log
        self.resident = self.peak = 0.0
        self.may_end = False
        self.started_at = datetime.now(UTC).replace(tzinfo=None)
        with log.path.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=log.path.parent,
                env={"PATH": os.environ["PATH"], **BASE_ENVIRONMENT, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def measure(self) -> None:
        """Note how much memory it takes, while it runs."""
        if not self.is_running:
            return
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        values = dict(line.split(":", 1) for line in status.splitlines())
        if "VmHWM" in values:  # a process that ends has none any more
            self.resident = int(values["VmRSS"].split()[0]) / KB_PER_MB
            self.peak = int(values["VmHWM"].split()[0]) / KB_PER_MB

    def terminate(self) -> None:
        """Tell it to stop."""
        self.may_end = True
        if self.is_running:
            self.process.terminate()

    def freeze(self) -> None:
        """Let it do nothing until it is thawed."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self.may_end = True
        self.measure()
        if self.is_running:
            self.process.kill()
        self.process.wait()

    async def exit_status(self, seconds: float = EXIT_DEADLINE) -> int:
        """The status of its exit, which must come within some seconds."""
        self.may_end = True
        deadline = time.monotonic() + seconds
        while self.is_running:
            assert time.monotonic() < deadline, f"still runs after {seconds} s"
            self.measure()
            await trio.sleep(POLL_INTERVAL)
        return self.process.returncode


def start_worker(log: Log, environment: Mapping[str, str], constants: Mapping[str, object] | None = None) -> Worker:
    """Start a collector; with `constants` through the launcher, whose files are looked for beside the log."""
    command = [sys.executable, "-m", "collector"]
    if constants is not None:
        told = json.dumps({"directory": str(log.path.parent), "constants": constants})
        command = [sys.executable, "-P", str(LAUNCHER), told]
    return Worker(command, environment, log)


def peak(workers: Iterable[Worker]) -> float:
    """The largest resident set of some workers, in MB."""
    return max((worker.peak for worker in workers), default=0.0)
