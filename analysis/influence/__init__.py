"""Which completions moved the policy, and by how much."""
