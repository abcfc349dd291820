"""A stand-in for Kraken on loopback, over any source of market data: for tests, development and replays."""
