"""Data folders as labelled examples with their splits, and the sample collection. Loads no TensorFlow."""
