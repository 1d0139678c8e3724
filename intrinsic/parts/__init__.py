"""What bonuses are built from; nothing here is a bonus."""
