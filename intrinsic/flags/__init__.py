"""Flags of the bonuses, one file for each family."""
