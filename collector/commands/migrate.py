"""`migrate`: bring the database's schema up to date; for a release phase, before the worker of that release starts."""

from datetime import UTC, datetime

from collector import exit_status
from collector.commands.arguments import told_in_one_line
from collector.settings import load_settings
from collector.storage.database import connect
from collector.storage.identity import claim_database
from collector.storage.migrations import migrate as apply_migrations
from collector.storage.partitions import ensure_ahead


@told_in_one_line
def migrate() -> int:
    """Apply what is missing and say what it was. Returns the exit status."""
    settings = load_settings()
    connection = connect(settings.database_url.get_secret_value(), application_name="collector: migrate")
    try:
        applied = apply_migrations(connection)
        claim_database(connection, settings.origin)
        ensure_ahead(connection, datetime.now(UTC).date())
    finally:
        connection.close()
    for name in applied:
        print(f"applied {name}")
    print("The schema is up to date.")
    return exit_status.DONE
