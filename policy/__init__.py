"""The policy: find it, load it, ask it, read it."""
