-- Trade ids that nobody can fetch any more, so that repair asks for them once.
CREATE TABLE IF NOT EXISTS kraken_absent_trades (
    pair TEXT NOT NULL,
    first_id BIGINT NOT NULL,
    last_id BIGINT NOT NULL CHECK (last_id >= first_id),
    found_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    PRIMARY KEY (pair, first_id)
);

COMMENT ON TABLE kraken_absent_trades IS 'Ranges of trade ids that Kraken does not have either, so that they are no holes in kraken_trades.';
COMMENT ON COLUMN kraken_absent_trades.pair IS 'Kraken''s symbol of the market, such as BTC/USD.';
COMMENT ON COLUMN kraken_absent_trades.first_id IS 'The first trade id of the range.';
COMMENT ON COLUMN kraken_absent_trades.last_id IS 'The last trade id of the range, itself absent too.';
COMMENT ON COLUMN kraken_absent_trades.found_at IS 'When Kraken was asked and did not have them, in UTC.';
