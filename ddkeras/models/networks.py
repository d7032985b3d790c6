"""Small networks of our own, to train from random initialization: RGB in 0..255 to a feature map."""

import keras

_STAGES = {64: 2, 128: 3, 256: 3, 512: 2}  # blocks by channels


def deepfake_net(image_size: int) -> keras.Model:
    """A residual bottleneck network of 2.6 million parameters.

    Four stages of 64, 128, 256 and 512 channels. Only the stem and the first block of stages 2 to 4 have stride 2, so
    the first stage works at half the input resolution rather than a quarter as in the paper: the traces of a
    generator are fine. Bottlenecks have half the channels rather than a quarter, which would be too few of 64. Each
    block is the identity at initialization.

    Args:
        image_size: height and width of the input, at least 32.

    Returns:
        A model from float32 (batch, image_size, image_size, 3), RGB in 0..255, to (batch, rows, columns, 512), where
        rows and columns are a 16th of `image_size`, rounded up.

    References:
        He et al. 2015, Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385
        Goyal et al. 2017, Accurate, Large Minibatch SGD, https://arxiv.org/abs/1706.02677 (the initialization)
    """
    images, features = _scaled_images(image_size)
    features = _relu(_convolution(features, 64, 3, strides=2))
    for stage, (channels, blocks) in enumerate(_STAGES.items()):
        for block in range(blocks):
            features = _bottleneck(features, channels, strides=2 if stage > 0 and block == 0 else 1)
    return keras.Model(images, features, name="deepfakenet")


def small_cnn(image_size: int) -> keras.Model:
    """Three blocks of convolution, BatchNorm, ReLU and pooling, of 32, 64 and 128 filters; 93 thousand parameters.

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
    features = _relu(_convolution(features, channels // 2, 3, strides=strides))  # a strided 3x3 skips no pixel
    # Zero gamma makes a new block the identity; otherwise the moving statistics of ten blocks would not settle in a
    # short run.
    features = _convolution(features, channels, 1, gamma="zeros")
    return _relu(keras.layers.Add()([features, shortcut]))


def _convolution(features, filters: int, size: int, *, strides: int = 1, gamma: str = "ones"):
    """A convolution and BatchNorm, whose beta takes the place of a bias."""
    convolve = keras.layers.Conv2D(
        filters, size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal"
    )
    return keras.layers.BatchNormalization(gamma_initializer=gamma)(convolve(features))


def _relu(features):
    return keras.layers.ReLU()(features)
