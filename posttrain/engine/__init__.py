"""Engines sample completions from a policy."""
