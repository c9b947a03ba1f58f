"""Rewards of other libraries."""
