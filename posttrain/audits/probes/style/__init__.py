"""Probes of what an answer looks like: its length, its style, its agreement with the user."""
