"""sql_tiny: a small world of generated questions on small databases, for a policy of a million parameters."""
