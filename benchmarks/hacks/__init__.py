"""Runs of RL with a known hack, or without one, for measuring what monitors find."""
