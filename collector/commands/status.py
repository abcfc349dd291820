"""`status`: how collecting goes, from the database and, where it can be read, from the spool's folder.

Looks from outside, so that it tells of a collector that hangs or is gone, too.
"""

import sys

from rich.console import Console

from collector import exit_status
from collector.commands.arguments import told_in_one_line
from collector.commands.status_document import Document, expected_pairs, make_document
from collector.commands.status_report import print_status, status_json
from collector.errors import StorageUnavailable
from collector.settings import Settings, load_settings
from collector.storage.backlog import read_backlog
from collector.storage.database import connect
from collector.storage.status import read_status

# Columns where there is no terminal whose width could be asked for: a file or a pipe takes any table as it is.
WIDTH_OF_A_FILE = 120


@told_in_one_line
def status(*, as_json: bool = False) -> int:
    """Print how collecting goes.

    Returns the exit status: 0 all is up to date, 1 something is stale, 2 it cannot be told.
    """
    try:
        document = look(load_settings())
    except StorageUnavailable as error:  # not 1, so that a health check can tell it from a collector that is down
        print(f"The database cannot be reached: {error}", file=sys.stderr)
        return exit_status.UNUSABLE
    if as_json:
        print(status_json(document))
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = WIDTH_OF_A_FILE
        print_status(document, console)
    return exit_status.FOUND_WRONG if document.stale else exit_status.DONE


def look(settings: Settings) -> Document:
    """Read and judge: the pairs of PAIRS where it is set, else those that the database has lately heard of.

    Raises:
        StorageUnavailable: the database cannot be had now.
        UnusableDatabase: it has not got this collector's schema.

    """
    selection = settings.selection if "pairs" in settings.model_fields_set else None
    connection = connect(settings.database_url.get_secret_value(), application_name="collector: status")
    try:
        stored = read_status(connection, lambda channels: expected_pairs(channels, selection))
    finally:
        connection.close()
    return make_document(stored, read_backlog(settings.spool_dir), settings.flush_interval)
