"""iGSM (Ye et al., arXiv 2407.20311): generated grade-school problems with exact operation counts, and worked traces.

Quantities of a small imaginary world depend on each other; the question asks for one of them. `space` says which
problems are drawn, `dataset` draws them, `trace` solves them in words, with or without the behaviours that BRIDGE
(arXiv 2505.18917) injects, and `reader` solves them from their text alone.
"""
