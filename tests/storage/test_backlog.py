"""A look into a spool's folder from outside: it counts what is there and disturbs nobody."""

from pathlib import Path

from samples import batch
from spooling import opened, seal

from collector.storage.backlog import read_backlog


def test_segments_are_counted_while_a_collector_holds_the_folder(tmp_path: Path) -> None:
    """Prevents a look from taking the lock, from beginning a segment, and from another count than the spool's own."""
    with opened(tmp_path / "spool") as spool:
        for number in range(3):
            spool.append(batch(number, 2))
            seal(spool)
        spool.reserve.keep()
        files = sorted(path.name for path in spool.directory.iterdir())
        backlog = read_backlog(spool.directory)
        assert backlog is not None
        assert (backlog.segments, backlog.bytes, backlog.set_apart) == (4, spool.bytes, {})
        assert sorted(path.name for path in spool.directory.iterdir()) == files


def test_what_was_set_apart_is_counted_by_folder(tmp_path: Path) -> None:
    """Prevents rejected rows and damaged segments from lying there unseen."""
    for name in ("rejected/1.jsonl", "damaged/1.segment", "damaged/2.segment"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    backlog = read_backlog(tmp_path)
    assert backlog is not None
    assert (backlog.segments, backlog.set_apart) == (0, {"damaged": 2, "rejected": 1})


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """Prevents `status` from failing on a machine where no collector runs."""
    assert read_backlog(tmp_path / "none") is None
    (tmp_path / "file").touch()
    assert read_backlog(tmp_path / "file") is None
    assert not (tmp_path / "none").exists()
