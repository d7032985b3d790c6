"""From images on disk to batches on the device, room by room.

`layouts` finds the images of a folder, `records` writes them as TFRecord shards, `reading` turns the shards into
batches, `decoding` is the one decode they all share, `sample_data` makes images to try it on. Import the room
you need: only `decoding`, `records` and `reading` load TensorFlow.
"""
