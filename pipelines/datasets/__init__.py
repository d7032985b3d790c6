"""Folders and tables of images as labelled examples, each with its split. Loads no TensorFlow."""
