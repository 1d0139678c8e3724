"""Text-to-SQL: questions on SQLite databases (Spider, BIRD), judged by the results of queries."""

SCHEMA_VALUES = 2  # example texts per column that a prompt shows, unless a flag says otherwise
