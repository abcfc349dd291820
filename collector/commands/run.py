"""`run`: collect until told to stop."""

import gc
import sys

import structlog
import trio

from collector import exit_status
from collector.errors import UnusableDatabase, UnusableSpool, first_of
from collector.logs import configure_logs
from collector.pipeline import Collector
from collector.settings import Settings, SettingsError, load_settings
from collector.storage.spool import Spool
from collector.tasks.live import show_live

log = structlog.get_logger()


def run(*, live: bool = False) -> int:
    """Collect; `live` keeps a line up to date that shows what is happening. Returns the exit status."""
    try:
        settings = load_settings()
        configure_logs(settings, over_live_line=live)
        _collect(settings, live=live)
    except (SettingsError, UnusableDatabase, UnusableSpool) as error:
        print(error, file=sys.stderr)
        return exit_status.UNUSABLE
    return exit_status.DONE


def _collect(settings: Settings, *, live: bool) -> None:
    spool = Spool.open(settings.spool_dir)
    left = len(spool.sealed)
    log.info("starting", pairs=settings.pairs, depth=settings.book_depth, spool=str(settings.spool_dir), segments=left)
    # What is there by now, the modules above all, stays until the end: each full collection of the garbage passed over
    # its 75,000 objects, and held up the event loop for 40 ms.
    gc.collect()
    gc.freeze()
    try:
        trio.run(_run, Collector(settings, spool), live)
    except BaseExceptionGroup as group:
        unusable, rest = group.split((UnusableDatabase, UnusableSpool))
        if unusable is None or rest is not None:
            raise
        raise first_of(unusable) from None
    finally:
        spool.close()
    if spool.sealed:
        log.warning(
            "stopped_with_rows_waiting",
            segments=len(spool.sealed),
            what_to_do=f"start again with SPOOL_DIR={settings.spool_dir}: they are shipped then",
        )
    else:
        log.info("stopped")


async def _run(collector: Collector, live: bool) -> None:
    async with trio.open_nursery() as nursery:
        if live:
            nursery.start_soon(show_live, collector.statistics, collector.spool)
        await collector.run()
        nursery.cancel_scope.cancel()
