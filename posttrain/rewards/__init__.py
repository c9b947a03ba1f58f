"""Rewards: functions that score rollouts, and the worker processes they run in."""
