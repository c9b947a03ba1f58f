"""Recipes: pipelines of stages, read, checked, planned and run."""
