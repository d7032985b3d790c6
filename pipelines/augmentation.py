"""What is done to the images of a training batch: on the device, batched, outside the tf.data workers."""

import keras


def augmenter(image_size: int, crop_size: int, *, flip: bool = True, seed: int = 0) -> keras.Model:
    """Cut a square out of each image and mirror it or not, left to right, with draws of its own.

    Args:
        image_size: height and width of the images.
        crop_size: height and width of the square, at most `image_size`. It is not scaled: that would wipe out the
            traces a detector lives on.
        flip: whether to mirror, one image in two.
        seed: of all draws.

    Returns:
        A model from float32 (batch, image_size, image_size, 3) to (batch, crop_size, crop_size, 3).
    """
    images = keras.Input((image_size, image_size, 3), name="images")
    augmented = keras.layers.Identity()(images)  # a model needs a layer, also when there is nothing to do
    if crop_size < image_size:
        augmented = RandomCrop(crop_size, seed=seed)(augmented)
    if flip:
        augmented = keras.layers.RandomFlip("horizontal", seed=seed)(augmented)
    return keras.Model(images, augmented, name="augmenter")


class RandomCrop(keras.layers.Layer):
    """A square of `size` out of each image, each cut elsewhere; keras.layers.RandomCrop cuts a batch in one place."""

    def __init__(self, size: int, *, seed: int = 0):
        super().__init__()
        self.size = size
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images):
        batch, height, width, channels = keras.ops.shape(images)
        rows = self._draw(batch, height)[:, :, None]
        columns = self._draw(batch, width)[:, None, :]
        firsts = keras.ops.arange(batch)[:, None, None] * height
        pixels = keras.ops.reshape(images, (-1, channels))
        return keras.ops.take(pixels, (firsts + rows) * width + columns, axis=0)

    def _draw(self, batch, side: int):
        # (batch, size): consecutive indices into `side`, from a start of each image's own.
        starts = keras.random.randint((batch, 1), 0, side - self.size + 1, seed=self.seed_generator)
        return starts + keras.ops.arange(self.size)
