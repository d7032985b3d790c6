"""From labels and logits to numbers: classification metrics, bootstrap intervals, calibration."""
