"""A seeded market, which the stand-in server can serve like a real one."""
