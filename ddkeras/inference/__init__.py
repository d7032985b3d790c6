"""Scoring image and video files with a run, an export or an ensemble."""
