"""Small networks of our own, to train from nothing: RGB in 0..255 in, a feature map out."""

import keras

_STAGES = {64: 2, 128: 3, 256: 3, 512: 2}  # channels: blocks


def deepfake_net(image_size: int) -> keras.Model:
    """A residual network of bottlenecks, 2.6 million parameters.

    Four stages of 64, 128, 256 and 512 channels. Only the stem and the first block of stages 2 to 4 halve the height
    and width, so that the first stage sees every second pixel, not every fourth as in the paper: the traces of a
    generator are fine. Blocks narrow to a half of their channels, not a quarter, which of 64 would leave too few, and
    begin by passing on what they get.

    Args:
        image_size: height and width of the input, at least 32.

    Returns:
        A model from float32 (batch, image_size, image_size, 3), RGB in 0..255, to (batch, rows, columns, 512), where
        rows and columns are a 16th of `image_size`, rounded up.

    References:
        He et al. 2015, Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385
        Goyal et al. 2017, Accurate, Large Minibatch SGD, https://arxiv.org/abs/1706.02677 (how blocks begin)
    """
    images, features = _scaled_images(image_size)
    features = _relu(_convolution(features, 64, 3, strides=2))
    for stage, (channels, blocks) in enumerate(_STAGES.items()):
        for block in range(blocks):
            features = _bottleneck(features, channels, strides=2 if stage > 0 and block == 0 else 1)
    return keras.Model(images, features, name="deepfakenet")


def small_cnn(image_size: int) -> keras.Model:
    """Three convolutions, of 32, 64 and 128 filters, each normalised, rectified and pooled; 93 thousand parameters.

    Args:
        image_size: height and width of the input, at least 32.

    Returns:
        A model from float32 (batch, image_size, image_size, 3), RGB in 0..255, to (batch, rows, columns, 128), where
        rows and columns are an 8th of `image_size`, rounded down.
    """
    images, features = _scaled_images(image_size)
    for filters in (32, 64, 128):
        features = keras.layers.MaxPooling2D()(_relu(_convolution(features, filters, 3)))
    return keras.Model(images, features, name="small-cnn")


def _scaled_images(image_size: int):
    images = keras.Input((image_size, image_size, 3), name="images")
    return images, keras.layers.Rescaling(1 / 127.5, offset=-1)(images)


def _bottleneck(features, channels: int, *, strides: int):
    shortcut = features
    if strides > 1 or features.shape[-1] != channels:
        shortcut = _convolution(features, channels, 1, strides=strides)
    features = _relu(_convolution(features, channels // 2, 1))
    features = _relu(_convolution(features, channels // 2, 3, strides=strides))  # of 3x3, which misses no pixel
    # From 0, so that a new block passes on its shortcut: ten that do not would keep the moving statistics of a short
    # run from settling.
    features = _convolution(features, channels, 1, gamma="zeros")
    return _relu(keras.layers.Add()([features, shortcut]))


def _convolution(features, filters: int, size: int, *, strides: int = 1, gamma: str = "ones"):
    """Normalised, which is why it needs no bias."""
    convolve = keras.layers.Conv2D(
        filters, size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal"
    )
    return keras.layers.BatchNormalization(gamma_initializer=gamma)(convolve(features))


def _relu(features):
    return keras.layers.ReLU()(features)
