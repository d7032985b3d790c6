"""Numbers from labels and logits: classification metrics, bootstrap intervals, calibration. NumPy alone."""
