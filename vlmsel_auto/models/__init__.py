"""Candidates and their weights: names, loading through open_clip, export, prediction."""
