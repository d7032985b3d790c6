"""Exporting a run to a model that runs without ddkeras: SavedModel, LiteRT or ONNX."""
