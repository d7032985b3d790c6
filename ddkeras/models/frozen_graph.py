"""A network as one graph with its weights as constants: the same scores, about a quarter faster on a CPU.

Only when the weights are constants does TensorFlow fold each BatchNormalization into the convolution before it.
"""

from collections.abc import Callable

import keras
import tensorflow as tf


def freeze_graph(network: keras.Model, image_size: int) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Trace a network with a copy of its weights as constants.

    Returns:
        A function from uint8 (batch, image_size, image_size, 3), RGB, to the network's outputs by name. It can be
        called within another graph and saved with it.
    """
    weights = [
        [variable.numpy() for variable in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    ]
    signature = [tf.TensorSpec([None, image_size, image_size, 3], tf.uint8, name="images")]

    @tf.function(input_signature=signature, autograph=False)
    def score(images):
        constants = [[tf.constant(values) for values in group] for group in weights]  # nodes of this graph
        outputs, _ = network.stateless_call(*constants, images, training=False)
        return outputs

    return score.get_concrete_function()
