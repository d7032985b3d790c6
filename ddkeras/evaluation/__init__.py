"""How good a run is, measured on records: scores, metrics with intervals, robustness, error analysis, comparison."""
