"""`migrate`: bring the database's schema up to date; for a release phase, before the worker of that release starts."""

import sys
from datetime import UTC, datetime

from collector import exit_status
from collector.errors import StorageUnavailable, UnusableDatabase
from collector.settings import SettingsError, load_settings
from collector.storage.database import connect
from collector.storage.identity import claim_database
from collector.storage.migrations import migrate as apply_migrations
from collector.storage.partitions import ensure_ahead


def migrate() -> int:
    """Apply what is missing and say what it was. Returns the exit status."""
    try:
        settings = load_settings()
        connection = connect(settings.database_url.get_secret_value(), application_name="collector: migrate")
        try:
            applied = apply_migrations(connection)
            claim_database(connection, settings.origin)
            ensure_ahead(connection, datetime.now(UTC).date(), 1)
        finally:
            connection.close()
    except (SettingsError, UnusableDatabase) as error:
        print(error, file=sys.stderr)
        return exit_status.UNUSABLE
    except StorageUnavailable as error:
        print(f"The database cannot be reached: {error}", file=sys.stderr)
        return exit_status.FOUND_WRONG
    for name in applied:
        print(f"applied {name}")
    print("The schema is up to date.")
    return exit_status.DONE
