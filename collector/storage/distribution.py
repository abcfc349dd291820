"""Where the Citus extension is installed: the data tables are distributed by pair, and so are their partitions.

Rows of one pair share a node, in all of these tables, so that whatever names its pair is asked of one node. The tables
that coordinate the collectors stay on the coordinator, where their locks and their clock are. Advisory locks and
pg_stat_activity are the coordinator's too: collectors connect to it.

Citus refuses two things that are done elsewhere: partitions detached CONCURRENTLY (partitions.py), and functions of
language SQL with parameters, of which the schema has none.
"""

from collector.storage.database import Connection

COLUMN = "pair"
# The first one begins the group of tables that are kept together.
DISTRIBUTED = ("kraken_trades", "kraken_orderbook", "kraken_coverage", "kraken_absent_trades", "kraken_audits")

_INSTALLED = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')"
_IS_DISTRIBUTED = "SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrel = %s::regclass)"
_DISTRIBUTE = "SELECT create_distributed_table(%s::regclass, %s, colocate_with => %s)"


def is_distributing(connection: Connection) -> bool:
    """Whether this database can distribute tables."""
    return _answer(connection, _INSTALLED)


def distribute(connection: Connection) -> list[str]:
    """Distribute the data tables that are not distributed yet; return their names.

    Their rows, if there are any, move to the nodes, which takes a while and holds up whoever writes.
    """
    distributed = []
    for table in DISTRIBUTED:
        if not _answer(connection, _IS_DISTRIBUTED, table):
            beside = "default" if table == DISTRIBUTED[0] else DISTRIBUTED[0]
            connection.execute(_DISTRIBUTE, [table, COLUMN, beside])
            distributed.append(table)
    return distributed


def _answer(connection: Connection, question: str, *arguments: object) -> bool:
    row = connection.execute(question, arguments).fetchone()
    return bool(row and row[0])
