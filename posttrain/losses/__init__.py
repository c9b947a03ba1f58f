"""Losses and advantages as pure functions."""
