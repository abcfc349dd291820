-- The processes that collect into this database, and the pairs that one of them is handing to another.
CREATE TABLE IF NOT EXISTS collector_members (
    member UUID PRIMARY KEY,
    name TEXT NOT NULL,
    patterns TEXT[] NOT NULL,
    is_available BOOLEAN NOT NULL,
    pairs TEXT[] NOT NULL,
    rows_per_second INTEGER NOT NULL,
    waiting_rows BIGINT NOT NULL,
    started_at TIMESTAMP NOT NULL,
    seen_at TIMESTAMP NOT NULL,
    session_process INTEGER NOT NULL,
    session_started_at TIMESTAMP NOT NULL
);

CREATE TABLE IF NOT EXISTS collector_handovers (
    pair TEXT PRIMARY KEY,
    giver UUID NOT NULL,
    taker UUID NOT NULL,
    is_taken BOOLEAN NOT NULL
);

COMMENT ON TABLE collector_members IS 'The collectors of this database. One lives while the session that it was last seen on does.';
COMMENT ON COLUMN collector_members.member IS 'Of one process, from its start to its end.';
COMMENT ON COLUMN collector_members.name IS 'The host and the process by which a person finds it.';
COMMENT ON COLUMN collector_members.patterns IS 'Its PAIRS: what it collects, if it is to.';
COMMENT ON COLUMN collector_members.is_available IS 'Whether it may be given pairs: not while it stops, nor while it can collect nothing.';
COMMENT ON COLUMN collector_members.pairs IS 'The pairs that it collects.';
COMMENT ON COLUMN collector_members.rows_per_second IS 'Rows that it received in a second, of late.';
COMMENT ON COLUMN collector_members.waiting_rows IS 'Rows that wait in its spool.';
COMMENT ON COLUMN collector_members.started_at IS 'When it began, by the clock of the database, in UTC.';
COMMENT ON COLUMN collector_members.seen_at IS 'When it was last heard of, by the clock of the database, in UTC.';
COMMENT ON COLUMN collector_members.session_process IS 'The server process of its session, as pg_stat_activity.pid.';
COMMENT ON COLUMN collector_members.session_started_at IS 'When that session began, as pg_stat_activity.backend_start, in UTC.';
COMMENT ON TABLE collector_handovers IS 'Pairs whose holder waits for another collector to be subscribed before it lets go.';
COMMENT ON COLUMN collector_handovers.pair IS 'Kraken''s symbol of the market, such as BTC/USD.';
COMMENT ON COLUMN collector_handovers.giver IS 'The member that holds the pair.';
COMMENT ON COLUMN collector_handovers.taker IS 'The member that is to hold it.';
COMMENT ON COLUMN collector_handovers.is_taken IS 'Whether the taker collects the pair, so that the giver may let go.';
