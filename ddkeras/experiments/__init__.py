"""Many trainings: hyperparameter search, and each source held out in turn."""
