"""Scripts that make the figures of docs/, each run from the root of the repository by `python -m`."""
