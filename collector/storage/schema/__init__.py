"""The schema as data: the migrations, in order, and the tables that they amount to.

Every migration is idempotent, whatever of it is there already; it never takes anything away that an older collector
needs, so that a deployment can be rolled back. `TABLES`, `INDEXES`, `VIEWS` and `FUNCTIONS` say what must be there once
all have run: by them a schema is checked and a table is adopted, and a test holds them equal to what the migrations
make.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

TIMESTAMP = "timestamp without time zone"
# Advisory locks are numbers that all users of a database share; this one is held by whoever changes the schema.
SCHEMA_LOCK = int.from_bytes(b"kraken")

# Column: type, as `format_type` writes it. In the order of the columns.
TABLES = {
    "kraken_trades": {
        "event_time": TIMESTAMP,
        "pair": "text",
        "price": "numeric",
        "volume": "numeric",
        "side": "text",
        "order_type": "text",
        "trade_id": "bigint",
    },
    "kraken_orderbook": {
        "event_time": TIMESTAMP,
        "pair": "text",
        "bids": "jsonb",
        "asks": "jsonb",
        "type": "text",
        "checksum": "bigint",
        "chain": "bigint",
        "seq": "integer",
        "evicted": "jsonb",
    },
    "kraken_coverage": {
        "pair": "text",
        "channel": "text",
        "chain": "bigint",
        "started_at": TIMESTAMP,
        "last_at": TIMESTAMP,
        "updates": "bigint",
        "rows": "bigint",
        "ended_at": TIMESTAMP,
        "end_reason": "text",
        "spool": "uuid",
        "dropped_before": TIMESTAMP,
        "suspect_since": TIMESTAMP,
    },
    "kraken_absent_trades": {
        "pair": "text",
        "first_id": "bigint",
        "last_id": "bigint",
        "found_at": TIMESTAMP,
    },
    "kraken_audits": {
        "pair": "text",
        "chain": "bigint",
        "audited_at": TIMESTAMP,
        "passed": "boolean",
        "differences": "jsonb",
    },
    "collector_spools": {"spool": "uuid", "last_segment": "bigint", "shipped_at": TIMESTAMP},
    "collector_members": {
        "member": "uuid",
        "name": "text",
        "patterns": "text[]",
        "is_available": "boolean",
        "pairs": "text[]",
        "rows_per_second": "integer",
        "waiting_rows": "bigint",
        "started_at": TIMESTAMP,
        "seen_at": TIMESTAMP,
        "session_process": "integer",
        "session_started_at": TIMESTAMP,
    },
    "collector_handovers": {"pair": "text", "giver": "uuid", "taker": "uuid", "is_taken": "boolean"},
    "collector_database": {"id": "uuid", "origin": "text", "created_at": TIMESTAMP},
}
# Index: its table. Primary keys come with their tables.
INDEXES = {
    "kraken_trades_pair_trade_id": "kraken_trades",
    "kraken_trades_event_time": "kraken_trades",
    "kraken_trades_adopted": "kraken_trades",
    "kraken_orderbook_event_time": "kraken_orderbook",
    "kraken_orderbook_snapshots": "kraken_orderbook",
    "kraken_coverage_open": "kraken_coverage",
    "collector_database_one_row": "collector_database",
}
# What readers use. View: its columns, as above.
VIEWS = {
    "kraken_gaps": {
        "pair": "text",
        "channel": "text",
        "started_at": TIMESTAMP,
        "ended_at": TIMESTAMP,
        "reason": "text",
    },
}
# Function, as `regprocedure` writes it: its result, as `pg_get_function_result` does.
FUNCTIONS = {
    f"kraken_book_at(text,{TIMESTAMP},integer)": "TABLE(side text, price numeric, size numeric)",
    f"kraken_candles(text,interval,{TIMESTAMP},{TIMESTAMP})": (
        f"TABLE(bucket {TIMESTAMP}, open numeric, high numeric, low numeric, close numeric, volume numeric,"
        " trades bigint)"
    ),
    f"kraken_completeness(text,{TIMESTAMP},{TIMESTAMP})": "TABLE(channel text, share numeric)",
    f"kraken_no_book_reason(text,{TIMESTAMP})": "text",
}


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: `number` orders them, `name` is its file's, `statements` its SQL."""

    number: int
    name: str
    statements: bytes


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations in order, from the package's `NNNN_name.sql` files."""
    files = [(re.match(r"(\d{4})_\w+\.sql$", file.name), file) for file in resources.files(__name__).iterdir()]
    found = [
        Migration(int(match[1]), file.name.removesuffix(".sql"), file.read_bytes()) for match, file in files if match
    ]
    return tuple(sorted(found, key=lambda migration: migration.number))
