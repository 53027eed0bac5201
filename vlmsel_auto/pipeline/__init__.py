"""The whole loop and its stages: the only room that knows their order."""
