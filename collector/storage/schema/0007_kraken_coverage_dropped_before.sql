-- Retention drops whole days of the order book; the runs that they were part of say so.
ALTER TABLE kraken_coverage ADD COLUMN IF NOT EXISTS dropped_before TIMESTAMP;

COMMENT ON COLUMN kraken_coverage.dropped_before IS 'The run''s rows before this time, in UTC, were dropped by retention; NULL when none were.';
