-- What was watched, from when to when. The rows of open runs are rewritten with every segment: half of each block
-- stays free for their next version, so that neither the indexes nor the table grow by it.
CREATE TABLE IF NOT EXISTS kraken_coverage (
    pair TEXT NOT NULL,
    channel TEXT NOT NULL,
    chain BIGINT NOT NULL,
    started_at TIMESTAMP NOT NULL,
    last_at TIMESTAMP NOT NULL,
    updates BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    ended_at TIMESTAMP,
    end_reason TEXT,
    spool UUID NOT NULL,
    PRIMARY KEY (pair, channel, chain)
) WITH (fillfactor = 50);

-- Finds the runs that a spool left open when its process died.
CREATE INDEX IF NOT EXISTS kraken_coverage_open ON kraken_coverage (spool) WHERE ended_at IS NULL;

COMMENT ON TABLE kraken_coverage IS 'One row for each unbroken run of verified data: where no run is, nobody was watching.';
COMMENT ON COLUMN kraken_coverage.pair IS 'Kraken''s symbol of the market, such as BTC/USD.';
COMMENT ON COLUMN kraken_coverage.channel IS 'What was watched: book or trade.';
COMMENT ON COLUMN kraken_coverage.chain IS 'The run''s number, unique for its pair and channel; the rows of a book run carry it.';
COMMENT ON COLUMN kraken_coverage.started_at IS 'When the run began by Kraken''s clock, in UTC.';
COMMENT ON COLUMN kraken_coverage.last_at IS 'Until when the run is known to be complete, by Kraken''s clock, in UTC.';
COMMENT ON COLUMN kraken_coverage.updates IS 'Updates that Kraken sent in a book run, trades received in a trade run.';
COMMENT ON COLUMN kraken_coverage.rows IS 'Rows that the run stored; for a book run also its next seq.';
COMMENT ON COLUMN kraken_coverage.ended_at IS 'When the run ended by Kraken''s clock, in UTC; NULL while it goes on.';
COMMENT ON COLUMN kraken_coverage.end_reason IS 'Why the run ended; NULL while it goes on.';
COMMENT ON COLUMN kraken_coverage.spool IS 'The spool that shipped the run, as in collector_spools.';
