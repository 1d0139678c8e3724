"""Plots and reports from a run folder."""
