"""A page that shows what single tokens were paid."""
