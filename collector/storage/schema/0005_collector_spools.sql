-- How far each spool has shipped. A spool's row is rewritten with every segment, hence the free space.
CREATE TABLE IF NOT EXISTS collector_spools (
    spool UUID PRIMARY KEY,
    last_segment BIGINT NOT NULL,
    shipped_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
) WITH (fillfactor = 50);

COMMENT ON TABLE collector_spools IS 'How far the spool of each collector has been shipped into this database.';
COMMENT ON COLUMN collector_spools.spool IS 'The spool''s id, which lies beside its segments on disk.';
COMMENT ON COLUMN collector_spools.last_segment IS 'The last segment that was committed: it and all before it are in the tables, each once.';
COMMENT ON COLUMN collector_spools.shipped_at IS 'When that segment was committed, by this database''s clock, in UTC.';
