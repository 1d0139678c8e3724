"""Trainer seam, options, policies, rollouts and checkpoints."""
