"""Stages that sample from a model and write data."""
