"""Measuring what work costs: wall and CPU time, peak memory, and JAX's compilation apart."""
