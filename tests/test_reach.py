"""Whether Kraken is in reach, by the frames that come."""

from collector.reach import DEAF_FOR, UNHEARD_AFTER, Reach


def test_silence_of_a_process_that_listens_is_told_after_a_while() -> None:
    """Prevents a process that cannot reach Kraken from keeping pairs that another could collect."""
    reach = Reach(0.0)
    assert reach.look(1.0, 5, listens=True)
    assert reach.look(1.0 + UNHEARD_AFTER, 5, listens=True)
    assert not reach.look(1.5 + UNHEARD_AFTER, 5, listens=True)


def test_a_frame_is_proof() -> None:
    """Prevents a process that hears Kraken again from being passed over."""
    reach = Reach(0.0)
    assert not reach.look(1.0 + UNHEARD_AFTER, 0, listens=True)
    assert reach.look(2.0 + UNHEARD_AFTER, 1, listens=True)


def test_a_process_without_pairs_has_nothing_to_hear() -> None:
    """Prevents a process that stands by from being taken for one that is cut off."""
    reach = Reach(0.0)
    assert reach.look(10 * UNHEARD_AFTER, 0, listens=False)
    assert reach.look(11 * UNHEARD_AFTER, 0, listens=True)


def test_a_deaf_process_is_not_asked_again_at_once() -> None:
    """Prevents pairs from going back and forth to a process that gives them up each time."""
    reach = Reach(0.0)
    deaf_at = 1.0 + UNHEARD_AFTER
    assert not reach.look(deaf_at, 0, listens=True)
    assert not reach.look(deaf_at + DEAF_FOR - 1.0, 0, listens=False)
    assert reach.look(deaf_at + DEAF_FOR, 0, listens=False)
