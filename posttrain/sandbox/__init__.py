"""Processes that run untrusted code."""
