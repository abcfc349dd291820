"""Connections to PostgreSQL: bounded in time, and their errors translated once, here, by who recovers.

Every function of `storage` that takes a connection takes one that `connect` made: autocommit, so that a transaction
is what stands inside `with connection.transaction()` and nothing else.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict

from collector.errors import StorageUnavailable, UnusableDatabase

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

# A query parameter of the URL wins over each of these: who writes `connect_timeout=60` there has said so.
SOCKET_PARAMETERS = {
    "connect_timeout": 5,  # seconds for each address of the host, TLS and authentication included
    # What we sent and nobody acknowledged, as after a failover, gives up after this many milliseconds.
    "tcp_user_timeout": 7000,
    # An idle peer that is gone is noticed after 3 + 3 * 1 seconds; the first default of Linux is two hours.
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
# Set after connecting, since some poolers refuse `options` at the start. All of them are session settings that any
# role may set, and PostgreSQL 13 knows them all.
SESSION_SETTINGS = {
    "statement_timeout": "7s",  # COPY included: a segment is a few thousand rows and takes well under a second
    "lock_timeout": "3s",  # whoever waits longer for a lock gives way, and tries again later
    "idle_in_transaction_session_timeout": "7s",  # a worker that froze inside a transaction gives up its locks
    "timezone": "UTC",
    "datestyle": "ISO, MDY",  # the only style in which the texts of catalogs and of psycopg are sure to be read right
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
}
# Seconds for the one round trip that sets them, with a server that greets and then hangs: 7 with those of connecting.
SETTINGS_DEADLINE = 2.0

# SQLSTATE classes that waiting can mend: connection, rollback, resources, state of an object, intervention, system,
# and internal errors, which are the server's or the pooler's own ("XX000 tenant not found"), never the row's.
UNAVAILABLE_CLASSES = frozenset({"08", "40", "53", "55", "57", "58", "XX"})
UNAVAILABLE_STATES = frozenset(
    {
        "25006",  # read-only transaction: a standby, or a primary on its way to become one
        "25P03",  # idle in transaction for too long: the session is gone
        "25P04",  # transaction timeout: likewise
        "28000",  # the role may not log in
        "28P01",  # wrong password
        "3D000",  # the database does not exist
        "42501",  # insufficient privilege
    }
)


def connect(url: str, *, application_name: str) -> Connection:
    """Open a connection to the database at `url`, in libpq's URL form with any of its query parameters.

    `application_name` is what `pg_stat_activity` shows, unless the URL or PGAPPNAME says otherwise. The look-up of
    the host's name is bounded by the resolver alone. Automatic prepared statements are off: they break behind a
    pooler, and when a migration changes a table under a session that lives on.

    Raises:
        StorageUnavailable: the database cannot be had now, with libpq's reason.
        UnusableDatabase: libpq cannot read the URL; the text is left out, since it holds the password.

    """
    parameters = SOCKET_PARAMETERS | {"fallback_application_name": application_name} | _parse(url)
    with translated():
        connection: Connection = psycopg.connect(**parameters, autocommit=True, prepare_threshold=None)
        try:
            with deadline(connection, SETTINGS_DEADLINE):
                _set_session(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _parse(url: str) -> dict[str, Any]:
    """Split the URL as libpq does, and refuse one of which a piece of the password would show up in error messages.

    libpq quotes the piece that it cannot read. Of a password with an unescaped `@` it takes the end for the host, of
    one with `/` it takes the beginning for the port; both would then be named in the message of the failed attempt.
    """
    with suppress(psycopg.ProgrammingError):
        parameters = conninfo_to_dict(url)
        ports = str(parameters.get("port") or "").split(",")
        if all(port.isdecimal() or not port for port in ports) and "@" not in str(parameters.get("host")):
            return parameters
    raise UnusableDatabase(
        "DATABASE_URL is no address that PostgreSQL's client library can read; it takes"
        " postgresql://user:password@host:port/database?parameter=value, where each of @ : / ? # and % in the user"
        " or the password is percent-encoded (@ as %40, / as %2F)"
    )


def _set_session(connection: Connection) -> None:
    settings = [argument for setting in SESSION_SETTINGS.items() for argument in setting]
    calls = ", ".join(["set_config(%s, %s, false)"] * len(SESSION_SETTINGS))
    connection.execute(f"SELECT {calls}", settings)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of psycopg inside the block into the collector's own.

    Becomes `StorageUnavailable`: every SQLSTATE of `UNAVAILABLE_CLASSES` and `UNAVAILABLE_STATES`, and an
    `OperationalError` without a SQLSTATE, which is a connection that was lost or never came to be (libpq tells a
    wrong password in this way, too). A wrong password, a missing database and a missing privilege are among them on
    purpose: platforms rotate credentials and databases under a running process, and whoever mends it, from outside,
    should find what was collected meanwhile in the spool.

    Passes through: data errors (classes 22 and 23, for the shipper, which isolates the row), a schema that is not as
    expected (42), and everything that only a bug can cause.
    """
    try:
        yield
    except psycopg.Error as error:
        if _is_unavailable(error):
            raise StorageUnavailable(_one_line(error)) from error
        raise


def _is_unavailable(error: psycopg.Error) -> bool:
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate[:2] in UNAVAILABLE_CLASSES or error.sqlstate in UNAVAILABLE_STATES


def _one_line(error: psycopg.Error) -> str:
    """The reason without libpq's hints, which stand on lines of their own, and without what psycopg says before it."""
    reason = error.diag.message_primary or str(error).removeprefix("connection failed: ") or type(error).__name__
    return reason.splitlines()[0].strip()


def abandon(connection: Connection) -> None:
    """Cut the connection from any thread: whoever waits for the server on it gets `StorageUnavailable` at once.

    For a server that does not answer at all, which no timeout of PostgreSQL's own bounds. libpq's handle is not safe
    to close while another thread is inside it, but its socket can be shut down through a copy. The thread that uses
    the connection closes it; it must not be used again.
    """
    with (
        suppress(psycopg.Error, OSError),  # it is closed already, or its peer is gone: nothing is left to cut
        socket.socket(fileno=os.dup(connection.fileno())) as copy,
    ):
        copy.shutdown(socket.SHUT_RDWR)


@contextmanager
def deadline(connection: Connection, seconds: float) -> Iterator[None]:
    """Abandon the connection when the block takes longer than `seconds`."""
    timer = threading.Timer(seconds, abandon, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
