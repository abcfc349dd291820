"""The processes of a run: the server of frames and a contestant, started, watched and ended."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
from embedded import stop_process, stop_with_parent

from bench.tape import Tape

PROJECT = Path(__file__).parent.parent.parent
ANSWER_TIMEOUT = 60.0  # seconds for what a process says next: the start of a collector of 700 pairs is in there
SEND_TIMEOUT = 300.0  # seconds for a client to take a tape, of a million messages at the most
SETTLED_FOR = 0.5  # seconds without work after which a process counts as started
POLL_INTERVAL = 0.05  # seconds between two looks


class BenchError(Exception):
    """A run that gives no figure, with the reason for a person. Recovered nowhere: the benchmark ends."""


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process: what it needs to find this code, these variables, and nothing of the caller's."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{PROJECT}:{PROJECT / 'scripts'}", "LANG": "C.UTF-8"} | variables


@dataclass(frozen=True, slots=True)
class FrameServer:
    """The parent's side of a server of frames."""

    process: subprocess.Popen[bytes]
    port: int
    sending: float  # seconds that it takes for the tape by itself

    def wait_subscribed(self) -> None:
        """Wait until the client has subscribed everything, and the snapshots are sent."""
        hear(self.process, "subscribed")

    def go(self) -> int:
        """Let it send the tape; return, once all is sent, when the first frame was, in nanoseconds since 1970."""
        say(self.process, "go")
        return hear(self.process, "sent", self.sending + SEND_TIMEOUT)


@contextmanager
def open_frame_server(tape: Tape, rate: float | None = None) -> Iterator[FrameServer]:
    """A server of frames that waits for its client; `rate` is messages a second, None for all that the client takes."""
    arguments = [str(tape.path), str(len(tape.pairs))]
    if rate is not None:
        arguments.append(str(rate))
    with open_helper("bench.frame_server", arguments) as process:
        yield FrameServer(process, hear(process, "port"), 0.0 if rate is None else tape.messages / rate)


@contextmanager
def open_helper(module: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a module of the benchmark, and speaks in lines with this one."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=environment(),
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=stop_with_parent,  # noqa: PLW1509 - it takes no lock that another thread may hold
    )
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    assert process.stdout is not None  # noqa: S101 - likewise
    try:
        yield process
    finally:
        process.stdin.close()
        stop_process(process, signal.SIGTERM)
        process.stdout.close()


def say(process: subprocess.Popen[bytes], line: str) -> None:
    """Write a line to a helper."""
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    process.stdin.write(f"{line}\n".encode())


def hear(process: subprocess.Popen[bytes], key: str, timeout: float = ANSWER_TIMEOUT) -> int:
    """Read the next line of a helper, which tells the value of `key`.

    Raises:
        BenchError: no line came in time, or it ended.

    """
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    readable, _, _ = select.select([process.stdout], [], [], timeout)
    line = process.stdout.readline() if readable else b""
    if not line:
        raise BenchError(f"no {key!r} came from {process.args!r} within {timeout:g} s")
    value: int = json.loads(line)[key]
    return value


@contextmanager
def open_contestant(
    command: Sequence[str | Path], variables: Mapping[str, str], folder: Path, log: IO[bytes]
) -> Iterator[psutil.Process]:
    """A collector of either make in a process of its own, in a folder of its own."""
    process = subprocess.Popen(
        command,
        env=environment(**variables),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=stop_with_parent,  # noqa: PLW1509 - it takes no lock that another thread may hold
    )
    try:
        yield psutil.Process(process.pid)
        if process.poll() is not None:
            raise BenchError(f"{command} ended by itself with status {process.returncode}")
    finally:
        stop_process(process, signal.SIGTERM)


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of all threads so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def wait_until_settled(process: psutil.Process) -> None:
    """Wait until a process has nothing to do."""
    deadline = time.monotonic() + ANSWER_TIMEOUT
    before = -1.0
    while (now := cpu_seconds(process)) > before:
        if time.monotonic() > deadline:
            raise BenchError(f"{process.cmdline()} has still not settled after {ANSWER_TIMEOUT:g} s")
        before = now
        time.sleep(SETTLED_FOR)


def resident_megabytes(process: psutil.Process) -> float:
    """The memory that a process holds now."""
    return float(process.memory_info().rss) / 2**20


def peak_megabytes(process: psutil.Process) -> float:
    """The most memory that a process has ever held, by proc(5)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
