"""Where time begins for every layer: what claims to be older is no time of the market, and has no place in a table."""

from datetime import UTC, datetime

EARLIEST = datetime(2013, 1, 1, tzinfo=UTC)  # Kraken's first trade is of October 2013
