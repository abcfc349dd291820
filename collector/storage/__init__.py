"""All that knows PostgreSQL and the spool on disk; nothing here knows Kraken or the tasks."""
