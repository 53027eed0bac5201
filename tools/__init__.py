"""Makers of files that the package, the docs and benchmarks/ ship, each run from the root by `python -m tools.NAME`."""
