"""Tuning the surrogate itself: a search over specs, never one twice, resumed from its journal."""
