"""Evaluation on records: scores, metrics with intervals, robustness, error analysis, comparison of runs."""
