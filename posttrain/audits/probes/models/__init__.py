"""Probes of rewards that a model computes."""
