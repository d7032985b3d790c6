"""`ddk serve`: an HTTP server with TensorFlow Serving's REST API."""
