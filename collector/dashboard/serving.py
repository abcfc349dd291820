"""Serving the dashboard over HTTP by Hypercorn, until told to stop."""

import logging
import socket
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_app

from collector.dashboard.app import make_app
from collector.dashboard.follower import Followers
from collector.dashboard.reader import Reader

GRACE = 1.0  # seconds for answers that are under way at the end; streams never end by themselves


async def serve(
    listener: socket.socket,
    database_url: str,
    token: str | None,
    *,
    stop: trio.Event,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set; tells the address once it is served.

    `listener` becomes Hypercorn's, which closes it.
    """
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = GRACE
    config.accesslog = None  # an address may hold the token
    config.errorlog = logging.getLogger("hypercorn")  # to where the others go: it is at WARNING
    config.include_server_header = False
    reader = Reader(database_url)
    try:
        async with trio.open_nursery() as following:
            app = make_app(reader, Followers(following, reader), token)
            async with trio.open_nursery() as serving:
                binds = await serving.start(partial(serve_app, app, config, shutdown_trigger=stop.wait))
                task_status.started(binds[0])
            following.cancel_scope.cancel()
    finally:
        reader.close()
