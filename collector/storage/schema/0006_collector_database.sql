-- Which database this is, and whose market it holds.
CREATE TABLE IF NOT EXISTS collector_database (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    origin TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
);

-- One row at most: every row has the same key.
CREATE UNIQUE INDEX IF NOT EXISTS collector_database_one_row ON collector_database ((true));

COMMENT ON TABLE collector_database IS 'One row: which database this is, and whose market it holds.';
COMMENT ON COLUMN collector_database.id IS 'By this a spool knows its database again.';
COMMENT ON COLUMN collector_database.origin IS 'Host of the feed that the tables hold; a collector of another feed does not write here.';
COMMENT ON COLUMN collector_database.created_at IS 'When the first collector claimed the database, in UTC.';
