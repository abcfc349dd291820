-- Trades. Writers name their columns; readers of an adopted table find NULL in trade_id.
CREATE TABLE IF NOT EXISTS kraken_trades (
    event_time TIMESTAMP NOT NULL,
    pair TEXT NOT NULL,
    price NUMERIC NOT NULL,
    volume NUMERIC NOT NULL,
    side TEXT NOT NULL,
    order_type TEXT NOT NULL
);

-- Apart from the six columns above, so that a table that an earlier collector made gets it too.
ALTER TABLE kraken_trades ADD COLUMN IF NOT EXISTS trade_id BIGINT;

-- Rows are only ever added, and those added last are those looked up (which trade ids are missing): a vacuum after
-- every 100,000 of them, instead of after a fifth of the table, keeps that look-up inside the index.
ALTER TABLE kraken_trades SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

-- Unique, and beginning with pair, so that an extension can distribute the table by it.
CREATE UNIQUE INDEX IF NOT EXISTS kraken_trades_pair_trade_id ON kraken_trades (pair, trade_id);

-- A thousandth of a B-tree's size, and rows come nearly in the order of their time. Each range of blocks is summarized
-- once it is full, since no vacuum may come for a long time.
CREATE INDEX IF NOT EXISTS kraken_trades_event_time ON kraken_trades USING brin (event_time) WITH (autosummarize = on);

COMMENT ON TABLE kraken_trades IS 'Every trade of the collected pairs, once.';
COMMENT ON COLUMN kraken_trades.event_time IS 'When the trade happened by Kraken''s clock, in UTC, to the microsecond.';
COMMENT ON COLUMN kraken_trades.pair IS 'Kraken''s symbol of the market, such as BTC/USD.';
COMMENT ON COLUMN kraken_trades.price IS 'Price in the quote currency, with every digit that Kraken sent.';
COMMENT ON COLUMN kraken_trades.volume IS 'Size in the base currency, with every digit that Kraken sent.';
COMMENT ON COLUMN kraken_trades.side IS 'The side of the order that took: buy or sell.';
COMMENT ON COLUMN kraken_trades.order_type IS 'Kraken''s word for the type of the order that took, such as market or limit.';
COMMENT ON COLUMN kraken_trades.trade_id IS 'Kraken''s number of the trade, which counts each pair''s trades without holes; NULL in rows of an earlier collector.';
