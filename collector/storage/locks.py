"""The lock on each pair: a session advisory lock, which PostgreSQL lets go of when its session ends.

It decides who subscribes to a pair, never who may ship. The session has an idle timeout, so that a holder that is
frozen, or cut off without a word, loses its locks as surely as one that died; PostgreSQL 13 has no such timeout, and
there only the end of the connection frees them. Session locks need a session: behind a pooler in transaction mode
they lock nothing.
"""

from collections.abc import Iterable
from hashlib import blake2b

from collector.storage.database import Connection

IDLE_TIMEOUT = 8  # seconds without a heartbeat after which PostgreSQL ends the session
_IDLE_SESSION_TIMEOUT_SINCE = 140000  # the server version that brought the setting

_TRY = """
SELECT wanted.pair FROM unnest(%s::text[], %s::bigint[]) AS wanted (pair, key) WHERE pg_try_advisory_lock(wanted.key)
"""

# A bigint key is shown in two halves, the upper one as classid.
_SESSION = """
SELECT pg_backend_pid(), (
    SELECT count(*) FROM pg_locks JOIN unnest(%s::bigint[]) AS held (key)
        ON classid = ((key >> 32) & 4294967295)::oid AND objid = (key & 4294967295)::oid AND objsubid = 1
    WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""


def prepare(connection: Connection) -> None:
    """Ready a session for holding locks."""
    if connection.info.server_version >= _IDLE_SESSION_TIMEOUT_SINCE:
        connection.execute("SELECT set_config('idle_session_timeout', %s, false)", [f"{IDLE_TIMEOUT}s"])


def try_lock(connection: Connection, pairs: Iterable[str]) -> frozenset[str]:
    """Lock those of the pairs that no other session holds; return them. Doubles as the session's heartbeat.

    A pair that this session holds must not be asked for again: it would have to be let go of twice.
    """
    wanted = sorted(pairs)
    return frozenset(pair for (pair,) in connection.execute(_TRY, [wanted, [_key(pair) for pair in wanted]]))


def session_of(connection: Connection, pairs: Iterable[str]) -> tuple[int, bool]:
    """The server process that answers now, and whether it holds the lock of each of these pairs.

    With a session of one's own the process stays the same, and holds what was locked on it. A pooler in transaction
    mode hands each call to whichever process is free, and ends the locks with the transaction, or forgets them there.
    """
    keys = [_key(pair) for pair in pairs]
    row = connection.execute(_SESSION, [keys]).fetchone()
    assert row is not None  # noqa: S101 - it is an aggregate's row
    process, held = row
    return process, held == len(keys)


def unlock(connection: Connection, pairs: Iterable[str]) -> None:
    """Let go of pairs that this session has locked."""
    connection.execute(
        "SELECT pg_advisory_unlock(key) FROM unnest(%s::bigint[]) AS held (key)", [list(map(_key, pairs))]
    )


def _key(pair: str) -> int:
    """A pair's key among advisory locks: any program that locks pairs of this database must compute the same."""
    digest = blake2b(f"collector:{pair}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
