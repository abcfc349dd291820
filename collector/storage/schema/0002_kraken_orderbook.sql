-- The order book: one partition a day, made by the collector. Only the time must be there, so that a table that an
-- earlier collector made can be attached; the days that the collector makes are stricter (partitions.py).
CREATE TABLE IF NOT EXISTS kraken_orderbook (
    event_time TIMESTAMP NOT NULL,
    pair TEXT,
    bids JSONB,
    asks JSONB,
    type TEXT,
    checksum BIGINT,
    chain BIGINT,
    seq INTEGER,
    evicted JSONB
) PARTITION BY RANGE (event_time);

-- Nearly free for a table that is written some hundred times a second. Each range of blocks is summarized once it is
-- full, since no vacuum may come within the day.
CREATE INDEX IF NOT EXISTS kraken_orderbook_event_time ON kraken_orderbook USING brin (event_time) WITH (autosummarize = on);

-- Finds the last checkpoint before a time, from which a book is rebuilt; snapshots are few, so that it stays small.
CREATE INDEX IF NOT EXISTS kraken_orderbook_snapshots ON kraken_orderbook (pair, event_time) WHERE type = 'snapshot';

COMMENT ON TABLE kraken_orderbook IS 'Every snapshot and update of the collected order books, each verified by its checksum.';
COMMENT ON COLUMN kraken_orderbook.event_time IS 'When the book changed by Kraken''s clock, in UTC, to the microsecond.';
COMMENT ON COLUMN kraken_orderbook.pair IS 'Kraken''s symbol of the market, such as BTC/USD.';
COMMENT ON COLUMN kraken_orderbook.bids IS 'Array of [price, size], with every digit that Kraken sent: all levels in a snapshot, the changed ones in an update, where size 0 removes a level.';
COMMENT ON COLUMN kraken_orderbook.asks IS 'Array of [price, size], with every digit that Kraken sent: all levels in a snapshot, the changed ones in an update, where size 0 removes a level.';
COMMENT ON COLUMN kraken_orderbook.type IS 'snapshot or update; a snapshot with seq above 0 is a checkpoint of the collector''s own.';
COMMENT ON COLUMN kraken_orderbook.checksum IS 'CRC32 of the ten best levels of each side after this row; NULL in rows of an earlier collector.';
COMMENT ON COLUMN kraken_orderbook.chain IS 'The unbroken run of this pair''s book that the row belongs to, described in kraken_coverage; NULL in rows of an earlier collector.';
COMMENT ON COLUMN kraken_orderbook.seq IS 'Place of the row in its chain, counted from 0 without holes; NULL in rows of an earlier collector.';
COMMENT ON COLUMN kraken_orderbook.evicted IS 'Prices that this row pushed out of the collected depth, as {"bids": [price], "asks": [price]}; NULL when it pushed out none.';
