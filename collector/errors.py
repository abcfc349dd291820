"""The errors of the collector, classified by who recovers from them.

What is not listed here is a bug, or a system that nobody can mend from inside: it crashes the group of tasks, and
the supervisor starts the group again.
"""


class MalformedMessage(ValueError):  # noqa: N818 - named by what happened, as the field does
    """A frame that breaks the protocol. Recovered in the book task: counted, kept as a sample, its pair resynced."""


class FeedError(Exception):
    """The connection to Kraken is of no more use. Recovered in the socket task: it reconnects with backoff."""


class StorageUnavailable(Exception):  # noqa: N818 - named by what happened, as the field does
    """PostgreSQL cannot be had now. Recovered in the flush task: segments wait in the spool."""


class UnusableDatabase(Exception):  # noqa: N818 - named by what happened, as the field does
    """A database that this collector must not write to as it is. Nobody recovers: exit status 2, with what to do."""
