"""The run folder: recipe, weights, checkpoint, history, operating point; and ensembles of runs."""
