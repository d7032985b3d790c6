"""A run as a file that runs without ddkeras: SavedModel, LiteRT, ONNX."""
