"""What a person is told of a history that takes hours."""

import structlog
import trio
from trio.testing import MockClock

from collector.id_ranges import IdRange
from collector.tasks.repair_progress import PROGRESS_INTERVAL, RepairProgress, moment

PAIR = "BTC/USD"
PAGE = 1000
SECOND = 10**9


async def fill(progress: RepairProgress, gap: IdRange, pages: int) -> IdRange:
    """Fetch a page a second; return what is left of a gap."""
    for page in range(pages):
        await trio.sleep(1)
        progress.note(PAIR, gap, PAGE, page * SECOND)
        gap = IdRange(gap.first + PAGE, gap.last)
    return gap


async def test_rate_and_rest_are_told_from_time_to_time(autojump_clock: MockClock) -> None:
    """Prevents a log that is silent for hours, that has a line for each page, or that names a time far off."""
    progress, pages = RepairProgress(), int(PROGRESS_INTERVAL)
    with structlog.testing.capture_logs() as logs:
        left = await fill(progress, IdRange(1, 3_600_000), pages + 1)
    (entry,) = logs
    assert entry["event"] == "history_progress"
    assert entry["fetched_to"] == moment(pages * SECOND) == "1970-01-01T00:00:30+00:00"
    assert entry["trades_per_second"] == PAGE
    assert entry["missing"] == left.size
    assert entry["hours_left"] == round(left.size / PAGE / 3600, 2)


async def test_time_for_other_gaps_is_no_part_of_a_rate(autojump_clock: MockClock) -> None:
    """Prevents an estimate of weeks after an hour that went to other gaps."""
    progress = RepairProgress()
    with structlog.testing.capture_logs() as logs:
        left = await fill(progress, IdRange(1, 3_600_000), 5)
        await trio.sleep(3600)
        await fill(progress, left, int(PROGRESS_INTERVAL) + 2)
    assert [entry["trades_per_second"] for entry in logs] == [PAGE]
