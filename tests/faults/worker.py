"""A collector as a process of its own: started, signalled, watched, and its log read."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import trio

PROJECT = Path(__file__).parent.parent.parent
LAUNCHER = Path(__file__).parent / "launcher.py"
DEADLINE = 60.0  # seconds within which whatever a test waits for has happened, on a machine that does much else
EXIT_DEADLINE = 10.0  # seconds from a signal to the exit: what the collector promises
POLL_INTERVAL = 0.05
LOG_TAIL = 4000  # characters of a log that a failure shows
KB_PER_MB = 1024
BASE_ENVIRONMENT = {
    "PYTHONPATH": str(PROJECT),
    "LANG": "C.UTF-8",
    "LOG_LEVEL": "debug",  # at which no event is left out as a repetition, so that tests can wait for one more of it
}


class Worker:
    """A running collector. `resident` and `peak` are its resident set now and at its largest, in MB."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self.resident = self.peak = 0.0
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=log.parent,
                env={"PATH": os.environ["PATH"], **BASE_ENVIRONMENT, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What it has logged; a worker that is started again goes on in the same file."""
        return self._log.read_text()

    def events(self, name: str) -> list[dict[str, object]]:
        """Its log's events of a name."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def measure(self) -> None:
        """Note how much memory it takes."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        values = dict(line.split(":", 1) for line in status.splitlines())
        if "VmHWM" in values:  # a process that ends has none any more
            self.resident = int(values["VmRSS"].split()[0]) / KB_PER_MB
            self.peak = int(values["VmHWM"].split()[0]) / KB_PER_MB

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.is_running:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self.measure()
        if self.is_running:
            self.process.kill()
        self.process.wait()

    async def wait_for(self, event: str, count: int = 1, seconds: float = DEADLINE) -> dict[str, object]:
        """Wait until an event is in the log for the count-th time; return it."""
        deadline = trio.current_time() + seconds
        while len(found := self.events(event)) < count:
            assert trio.current_time() < deadline, f"{count} {event!r} within {seconds} s"
            assert self.is_running, f"ended with {self.process.returncode} before {count} {event!r}"
            await trio.sleep(POLL_INTERVAL)
        return found[count - 1]

    async def exit_status(self, seconds: float = EXIT_DEADLINE) -> int:
        """The status of its exit, which must come within some seconds."""
        deadline = time.monotonic() + seconds
        while self.is_running:
            assert time.monotonic() < deadline, f"still runs after {seconds} s"
            self.measure()
            await trio.sleep(POLL_INTERVAL)
        return self.process.returncode


def start_worker(
    directory: Path,
    environment: Mapping[str, str],
    *,
    constants: Mapping[str, object] | None = None,
    name: str = "collector",
) -> Worker:
    """Start a collector; with `constants` through the launcher, whose files are looked for in `directory`."""
    command = [sys.executable, "-m", "collector"]
    if constants is not None:
        told = json.dumps({"directory": str(directory), "constants": constants})
        command = [sys.executable, "-P", str(LAUNCHER), told]
    return Worker(command, environment, directory / f"{name}.log")


def peak(workers: Iterable[Worker]) -> float:
    """The largest resident set of some workers, in MB."""
    return max((worker.peak for worker in workers), default=0.0)
