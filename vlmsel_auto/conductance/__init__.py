"""Conductance of every visual block in one sweep."""
