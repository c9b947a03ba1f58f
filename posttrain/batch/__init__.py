"""Batches: token rows packed into forests, and what a loss reads beside them."""
