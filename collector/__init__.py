"""A collector of Kraken market data that can be trusted: trades and order books into PostgreSQL, exactly once."""
