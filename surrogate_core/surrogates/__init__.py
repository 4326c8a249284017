"""Surrogates: frozen specs, what they fit, and their files."""
