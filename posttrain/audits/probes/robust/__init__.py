"""Probes of what a reward does with answers that nobody should write, and of whether it always does the same."""
