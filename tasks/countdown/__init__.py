"""Countdown: combine given numbers to reach a target."""
