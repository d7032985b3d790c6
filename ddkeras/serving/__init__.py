"""`ddk serve`: an HTTP server that implements TensorFlow Serving's REST API."""
