"""The reasons of kraken_coverage in words. Pure.

A word that is not known here, of a newer collector say, stands for itself.
"""

NO_NEWS = "no_news"  # of a gap that no collector has told of

REASONS = {
    NO_NEWS: "no news: the collector has stopped, or its rows wait for the database",
    "audit": "an audit found the book wrong",
    "checksum": "the book did not fit Kraken's checksum",
    "connection_lost": "the connection was lost",
    "crash": "a fault in the collector",
    "crossed": "the best bid reached the best ask",
    "dropped_by_retention": "old books are dropped, as BOOK_RETENTION_DAYS says",
    "malformed": "a message could not be read",
    "process_ended": "the collector's process ended",
    "resync_failed": "the book went wrong several times in a row",
    "row_rejected": "PostgreSQL rejected a row",
    "shutdown": "the collector was stopped",
    "silent": "nothing came over the connection any more",
    "silent_subscription": "the subscription had gone quiet, and the book was another",
    "time_stepped_back": "Kraken's times stepped back",
    "unanswered": "Kraken did not answer",
    "spool_full": "the spool ran out of room",
    "yielded": "another collector took the pair over",
    "closed_1006": "the connection broke off",
}
CLOSED = "closed_"  # then the code of RFC 6455 with which the server closed


def explain(reason: str | None) -> str:
    """A reason in words, with its own word behind them."""
    if reason is None:
        return "nobody told why"
    words = REASONS.get(reason) or ("Kraken closed the connection" if reason.startswith(CLOSED) else None)
    return reason if words is None else f"{words} ({reason})"
