"""Rewards by rules: form, length, constraints of instructions."""
