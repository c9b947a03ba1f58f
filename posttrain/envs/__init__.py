"""Environments for rollouts of many turns: tools, games, searches, and the processes they live in."""
