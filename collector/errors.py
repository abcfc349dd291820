"""The errors of the collector, classified by who recovers from them.

What is not listed here is a bug, or a system that nobody can mend from inside: it crashes the group of tasks, and
the supervisor starts the group again.
"""


class MalformedMessage(ValueError):  # noqa: N818 - named by what happened, as the field does
    """A frame that breaks the protocol. Recovered in the book task: counted, kept as a sample, its pair resynced."""


class BookDesync(Exception):  # noqa: N818 - named by what happened, as the field does
    """A book that is not Kraken's any more. Recovered in the book task: its run ends, the pair is resynced."""


class FeedError(Exception):
    """The connection to Kraken is of no more use. Recovered in the socket task: it reconnects with backoff.

    Attributes:
        reason: one word for coverage and logs, such as `closed_1012`.
        detail: what a person wants to know beside it.
        pause: seconds to stay away at least, where the server asked for more than the usual backoff.

    """

    def __init__(self, reason: str, detail: str = "", *, pause: float = 0.0) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.pause = pause


class RestError(Exception):
    """Kraken's REST interface gave no usable answer. Recovered by the caller: it tries again later.

    Attributes:
        not_before: seconds since 1970 before which Kraken wants to hear nothing, 0 where it did not say.

    """

    def __init__(self, message: str, *, not_before: int = 0) -> None:
        super().__init__(message)
        self.not_before = not_before


class UnknownPair(RestError):  # noqa: N818 - named by what happened, as the field does
    """Kraken's REST interface does not know a pair. Recovered by the caller: asking again is of no use."""


class StorageUnavailable(Exception):  # noqa: N818 - named by what happened, as the field does
    """PostgreSQL cannot be had now. Recovered in the flush task: segments wait in the spool."""


class UnusableDatabase(Exception):  # noqa: N818 - named by what happened, as the field does
    """A database that this collector must not write to as it is. Nobody recovers: exit status 2, with what to do."""


class UnusableSpool(Exception):  # noqa: N818 - named by what happened, as the field does
    """A spool folder that cannot be used. Nobody recovers: exit status 2, with what to do."""


def first_of(error: BaseException) -> BaseException:
    """The first exception of a group, however deep; an exception that is no group is itself the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
