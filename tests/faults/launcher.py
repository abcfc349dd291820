"""Runs the collector with faults inside: what no test can do to a process from outside.

    launcher.py '{"directory": "…", "constants": {"collector.tasks.probe:QUIET_AFTER": 3}}'

Constants are set at once; `module:NAME[key]` is an entry of a dictionary. Every other fault waits for a file of its
name in the directory. `crash-NAME` and `block-NAME` (NAME is a task of `TASKS`) are taken away when they strike;
`clock-back`, `no-dns`, `disk-full` and `small-room` last for as long as the file is there.
"""

import errno
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import trio

from collector import pipeline
from collector.__main__ import main
from collector.storage import spool as spool_module
from collector.storage.room import Room
from collector.storage.spool import Spool

TASKS = {
    "socket": "run_sockets",
    "book": "keep_books",
    "flush": "flush",
    "lock": "share_pairs",
    "partitions": "keep_partitions_ahead",
    "probe": "probe_quiet_books",
    "repair": "repair",
    "audit": "audit_books",
    "publish": "publish",
}
LOOK_INTERVAL = 0.02  # seconds
BLOCK_SECONDS = 5.0
STEP_BACK = timedelta(hours=1)
SMALLER = 1000  # times the room in the spool


class InjectedCrash(Exception):  # noqa: N818 - named by what happened
    """A bug, as far as the collector can tell."""


def set_constant(place: str, value: object) -> None:
    """Set a module's constant, or an entry of one that is a dictionary; it must be there already."""
    module_name, _, name = place.partition(":")
    module = importlib.import_module(module_name)
    name, _, key = name.rstrip("]").partition("[")
    constant = getattr(module, name)
    if key:
        match = next(known for known in constant if str(known) == key)
        constant[match] = value
    else:
        setattr(module, name, value)


def breakable(name: str, task: Callable[..., Awaitable[None]], directory: Path) -> Callable[..., Awaitable[None]]:
    """A task that crashes, or blocks the event loop, when a file tells it to."""

    async def run(*arguments: Any, **keywords: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(strike)
            await task(*arguments, **keywords)
            nursery.cancel_scope.cancel()

    async def strike() -> None:
        crash, block = directory / f"crash-{name}", directory / f"block-{name}"
        while True:
            if crash.exists():
                crash.unlink()
                raise InjectedCrash(name)
            if block.exists():
                block.unlink()
                time.sleep(BLOCK_SECONDS)  # noqa: ASYNC251 - to block is the fault
            await trio.sleep(LOOK_INTERVAL)

    return run


def while_there(path: Path, broken: Callable[..., Any], sound: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is `broken` while a file is there."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        return (broken if path.exists() else sound)(*arguments, **keywords)

    return call


def no_address(*_arguments: Any, **_keywords: Any) -> Any:
    """What a resolver does that is out of reach."""
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def no_space(*_arguments: Any, **_keywords: Any) -> Any:
    """What a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def install(directory: Path, constants: dict[str, object]) -> None:
    """Put every fault in place."""
    for place, value in constants.items():
        set_constant(place, value)
    for name, function in TASKS.items():
        setattr(pipeline, function, breakable(name, getattr(pipeline, function), directory))
    now = pipeline.utc_now
    pipeline.utc_now = while_there(directory / "clock-back", lambda: now() - STEP_BACK, now)
    socket.getaddrinfo = while_there(directory / "no-dns", no_address, socket.getaddrinfo)
    full = directory / "disk-full"
    spool_module._write_all = while_there(full, no_space, spool_module._write_all)
    os.posix_fallocate = while_there(full, no_space, os.posix_fallocate)
    update = Room.update
    Room.update = while_there(
        directory / "small-room", lambda room, used, **disk: update(room, used * SMALLER, **disk), update
    )
    Spool.disk_free = while_there(full, lambda _spool: 0, Spool.disk_free)


if __name__ == "__main__":
    told = json.loads(sys.argv.pop())
    install(Path(told["directory"]), told["constants"])
    sys.exit(main())
