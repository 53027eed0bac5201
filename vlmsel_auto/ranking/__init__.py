"""Predicted order of the candidates: divergence, evidence, fusion, agreement. Pure arrays."""
