"""Networks: backbones, the two heads, precision, and the frozen graph used for scoring."""
