"""Tasks: rows, prompts and disjoint splits."""
