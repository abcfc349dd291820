"""Checking stored rows. Pure: what is read from the database is passed in."""
