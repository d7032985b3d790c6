"""Image and video files to scores, by a run, an export or an ensemble."""
