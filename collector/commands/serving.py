"""What the commands share that serve a market on this machine: the server's life, and what is told of it."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import trio

from collector import exit_status
from collector.errors import first_of
from collector.kraken.server.serving import Address, serve
from collector.kraken.server.source import Source

DEFAULT_PORT = 8765

# What keeps a port from being had, as opposed to a fault in here.
_PORT_ERRORS = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)


def serve_until_stopped(open_source: Callable[[], AbstractAsyncContextManager[Source]], port: int) -> int:
    """Serve a source until Ctrl-C or SIGTERM, and print the settings that lead to it; returns the exit status."""
    try:
        trio.run(_serve, open_source, port)
    except* OSError as group:
        error = first_of(group)
        if not isinstance(error, OSError) or error.errno not in _PORT_ERRORS:
            raise
        print(f"port {port} cannot be used: {os.strerror(error.errno)}", file=sys.stderr)
        status = exit_status.UNUSABLE
    else:
        status = exit_status.DONE
    return status


async def _serve(open_source: Callable[[], AbstractAsyncContextManager[Source]], port: int) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_source() as source, trio.open_nursery() as nursery:
            address: Address = await nursery.start(partial(serve, source, port=port))
            print(f"KRAKEN_WS_URL={address.ws_url}\nKRAKEN_REST_URL={address.rest_url}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break
