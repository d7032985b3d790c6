"""Records as tf.data batches, for training and for inference, and the cache of decoded images."""
