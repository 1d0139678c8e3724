"""Will a run fit into memory: estimate, measured step, advice."""
