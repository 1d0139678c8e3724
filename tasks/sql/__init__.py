"""Text-to-SQL: questions on SQLite databases (Spider, BIRD), judged by the results of queries."""
