"""The reward for code."""
