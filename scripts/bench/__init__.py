"""The benchmark: what the collector takes, beside cryptofeed, on the same feed and into the same PostgreSQL."""
