"""`dashboard`: a web page that shows what is stored, until told to stop.

What it is made of is an optional extra, imported only here and only when the command runs.
"""

import socket
from functools import partial

import trio

from collector import exit_status
from collector.commands.arguments import WrongUsage, told_in_one_line
from collector.logs import configure_logs
from collector.settings import load_settings
from collector.supervisor import stop_on_signal

DEFAULT_HOST = "127.0.0.1"
PACKAGES = ("hypercorn", "quart", "quart_trio")
INSTALL = "python -m pip install hypercorn quart quart-trio"


@told_in_one_line
def dashboard(port: int | None = None, host: str = DEFAULT_HOST) -> int:
    """Serve the page until Ctrl-C or SIGTERM; `port` None is that of the settings, 0 a free one.

    Returns the exit status.
    """
    try:
        from collector.dashboard.access import is_loopback  # noqa: PLC0415 - an optional extra
        from collector.dashboard.serving import serve  # noqa: PLC0415 - likewise
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise WrongUsage(f"The dashboard needs packages that are not installed; install them with: {INSTALL}") from None
    settings = load_settings()
    token = None if settings.dashboard_token is None else settings.dashboard_token.get_secret_value()
    if token is None and not is_loopback(host):
        raise WrongUsage(
            f"DASHBOARD_TOKEN: it is not set; to listen at {host}, off this machine's loopback, it takes one"
        )
    configure_logs(settings)
    listener = _listen(host, settings.port if port is None else port)
    url = settings.database_url.get_secret_value()

    async def run() -> None:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, stop, nursery.cancel_scope)
            async with trio.open_nursery() as serving:
                address = await serving.start(partial(serve, listener, url, token, stop=stop))
                hint = "" if token is None else "?token=… (your DASHBOARD_TOKEN, the first time)"
                print(f"The dashboard is at {address}/{hint}", flush=True)
            nursery.cancel_scope.cancel()

    trio.run(run)
    return exit_status.DONE


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        WrongUsage: it cannot be had there.

    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]  # behind it Python says again which address
        raise WrongUsage(f"cannot listen at {host}, port {port}: {why}; --host and --port take others") from None
