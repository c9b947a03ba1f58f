"""Probes of rewards that run code: programs that cheat, and the strength of the tests."""
