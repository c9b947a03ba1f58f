"""Evaluation: the retention suite, statistics, and the comparison of runs."""
