"""Bounds and baselines: what a gate is, and how it is judged."""
