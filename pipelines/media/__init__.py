"""Image and video files before any network: headers, metadata, provenance, frames, faces. Loads no TensorFlow."""
