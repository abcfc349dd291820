"""The stored market, served again: a source for the stand-in server that reads PostgreSQL's history."""
