"""A web page over what is stored: it reads the database, and knows nothing that is not in there."""
