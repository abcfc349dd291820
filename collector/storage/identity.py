"""Which feed a database holds, and the id by which a spool knows its database again.

A database holds the market of one feed for good: what it was first used with. So rows of a simulator never mix with
real ones, whoever sets DATABASE_URL to what.
"""

from uuid import UUID

from collector.errors import UnusableDatabase
from collector.storage.database import Connection, translated


def claim_database(connection: Connection, origin: str) -> UUID:
    """Return the database's id, after making `origin` (the host of the feed) its own if it has none yet.

    The schema must be migrated. Two workers that claim an unclaimed database at once agree on one id and one origin.

    Raises:
        UnusableDatabase: the database holds another feed.
        StorageUnavailable: the database cannot be had now.

    """
    with translated():
        connection.execute("INSERT INTO collector_database (origin) VALUES (%s) ON CONFLICT DO NOTHING", [origin])
        row = connection.execute("SELECT id, origin FROM collector_database").fetchone()
    if row is None:
        raise UnusableDatabase(
            "table collector_database is empty and takes no row: drop it, and the next start makes it again"
        )
    identifier: UUID
    identifier, holds = row
    if holds != origin:
        raise UnusableDatabase(
            f"the database holds the feed of {holds}, and this collector was told to collect {origin}: set"
            f" DATABASE_URL to another database, or KRAKEN_WS_URL to the feed that this one holds"
        )
    return identifier
