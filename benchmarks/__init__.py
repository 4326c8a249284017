"""Benchmarks, run on request: `make bench`, or `python -m benchmarks.NAME`."""
