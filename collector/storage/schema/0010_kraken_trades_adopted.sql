-- Finds how far an earlier collector's rows reach, which have no id. Empty where there are none, and so free.
CREATE INDEX IF NOT EXISTS kraken_trades_adopted ON kraken_trades (pair, event_time) WHERE trade_id IS NULL;
