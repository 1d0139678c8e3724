"""Generation for evaluation, and metrics."""
