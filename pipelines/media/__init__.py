"""Image and video files: headers, metadata, provenance, thumbnails, frames, faces. Loads no TensorFlow."""
