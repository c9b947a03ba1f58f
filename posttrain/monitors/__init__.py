"""Monitors: observers that watch the steps of RL for signs that a reward is gamed."""
