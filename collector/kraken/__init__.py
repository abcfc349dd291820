"""All that knows Kraken's wire; nothing here knows PostgreSQL, the spool or the tasks."""
