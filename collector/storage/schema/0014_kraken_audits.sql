-- The deep audits: each compared one book with a fresh snapshot of it on every level.
CREATE TABLE IF NOT EXISTS kraken_audits (
    pair TEXT NOT NULL,
    chain BIGINT NOT NULL,
    audited_at TIMESTAMP NOT NULL,
    passed BOOLEAN NOT NULL,
    differences JSONB NOT NULL,
    PRIMARY KEY (pair, chain, audited_at)
);

ALTER TABLE kraken_coverage ADD COLUMN IF NOT EXISTS suspect_since TIMESTAMP;

COMMENT ON TABLE kraken_audits IS 'Every comparison of a collected order book with a fresh snapshot, on all of its levels.';
COMMENT ON COLUMN kraken_audits.pair IS 'Kraken''s symbol of the market, such as BTC/USD.';
COMMENT ON COLUMN kraken_audits.chain IS 'The run whose book was compared, as in kraken_coverage.';
COMMENT ON COLUMN kraken_audits.audited_at IS 'The time of the snapshot by Kraken''s clock, in UTC.';
COMMENT ON COLUMN kraken_audits.passed IS 'Whether the book was the snapshot on every level.';
COMMENT ON COLUMN kraken_audits.differences IS 'The levels that differed: array of {side, price, ours, theirs}, null where a level was missing.';
COMMENT ON COLUMN kraken_coverage.suspect_since IS 'Since when a book run may be wrong below its ten best levels: its last good audit before one that failed; NULL when none failed.';
