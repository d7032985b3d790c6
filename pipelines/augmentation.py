"""What is done to the images of a training batch: on the device, batched, outside the tf.data workers."""

import keras


def augmenter(image_size: int, *, seed: int = 0) -> keras.Model:
    """Mirror each image or not, left to right, with a draw of its own.

    Returns:
        A model from float32 (batch, image_size, image_size, 3) to the same, which changes nothing unless it is called
        with `training=True`.
    """
    images = keras.Input((image_size, image_size, 3), name="images")
    return keras.Model(images, keras.layers.RandomFlip("horizontal", seed=seed)(images), name="augmenter")
