"""Frozen graphs."""

import keras
import numpy as np
import tensorflow as tf

from ddkeras.models.frozen_graph import freeze_graph


def test_a_frozen_graph_has_the_outputs_of_the_network(run):
    network = run.load_scorer()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    graph = freeze_graph(network, 32)
    outputs, expected = graph(tf.constant(images)), network.predict_on_batch(images)
    assert sorted(outputs) == ["category_probabilities", "fake_probability", "logit", "verdict"]
    for name, values in expected.items():
        assert outputs[name].dtype == values.dtype
        np.testing.assert_allclose(outputs[name], values, atol=1e-6)


def test_a_frozen_graph_keeps_its_weights_when_the_network_changes(run):
    network = run.load_scorer()
    images = np.full((1, 32, 32, 3), 200, np.uint8)
    graph = freeze_graph(network, 32)
    before = graph(tf.constant(images))["logit"].numpy()
    network.set_weights([np.zeros_like(values) for values in network.get_weights()])
    np.testing.assert_array_equal(graph(tf.constant(images))["logit"], before)
    assert before != network.predict_on_batch(images)["logit"]


def test_a_frozen_graph_with_swish_can_be_saved(tmp_path):
    images = keras.Input((8, 8, 3))
    outputs = {"logit": keras.layers.Activation("swish")(keras.layers.Conv2D(2, 3)(images))}
    network = keras.Model(images, outputs)
    graph, pixels = freeze_graph(network, 8), np.full((1, 8, 8, 3), 9, np.uint8)
    signature = tf.function(graph, input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.uint8, name="images")])
    tf.saved_model.save(tf.Module(), tmp_path, signatures=signature)
    outputs = tf.saved_model.load(tmp_path).signatures["serving_default"](images=tf.constant(pixels))
    np.testing.assert_allclose(outputs["logit"], network.predict_on_batch(pixels)["logit"], rtol=1e-5)
