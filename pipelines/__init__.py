"""From images on disk to batches on the device, room by room.

`layouts` finds the images of a folder, `audit` says what a model could cheat with, `conversion` writes them as
TFRecord shards, `records` opens these, `reading` turns them into batches, `decoding` is the one decode they all
share, `sample_data` makes images to try it on. Import the room you need: only `decoding`, `writing`, `reading` and
`augmentation` load TensorFlow or Keras.
"""
