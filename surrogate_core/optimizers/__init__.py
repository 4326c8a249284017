"""Optimizers that follow the surrogate's gradient."""
