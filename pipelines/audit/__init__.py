"""Checks of a data set for what a detector could exploit: shortcuts in the files, and duplicate images."""
