"""What watches a run and warns of collapse."""
