"""Text-to-SQL: queries that a policy wrote, run on SQLite under limits and judged by their results."""
