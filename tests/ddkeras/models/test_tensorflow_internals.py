"""The private APIs of Keras 3.15.1 and TensorFlow 2.21.0 that we rely on, and the error where one is gone."""

import keras
import pytest
import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.models import tensorflow_internals
from ddkeras.models.tensorflow_internals import litert_operations, require
from ddkeras.training import optimizers


def test_the_versions_last_seen():
    assert tensorflow_internals.SEEN == {"keras": "3.15.1", "tensorflow": "2.21.0"}


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_the_operations_of_a_litert_graph_as_in_tensorflow_2_21_0(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3), keras.layers.Conv2D(4, 3)])
    model.export(tmp_path / "model.tflite", format="litert", verbose=False)
    interpreter = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    operations = litert_operations(interpreter)
    assert [operation["op_name"] for operation in operations] == ["CONV_2D", "CONV_2D"]
    kernel = interpreter.get_tensor(operations[0]["inputs"][1])
    assert kernel.shape == (2, 3, 3, 3)
    assert operations[0]["outputs"][0] == operations[1]["inputs"][0]


def test_an_interpreter_without_operations_is_one_line(monkeypatch):
    monkeypatch.delattr(tf.lite.Interpreter, "_get_ops_details")
    message = r"^tensorflow \S+ has no Interpreter\._get_ops_details, which ddkeras .*; install tensorflow==2\.21\.0$"
    with pytest.raises(ConfigError, match=message):
        litert_operations(None)


@pytest.mark.parametrize("base", [keras.optimizers.AdamW, keras.optimizers.Adam, keras.optimizers.SGD])
def test_the_methods_of_optimizers_that_are_overridden_as_in_keras_3_15_1(base):
    require("keras", base, "_apply_weight_decay", "_all_reduce_sum_gradients", "_get_variable_index")


def test_an_optimizer_without_a_method_that_is_overridden_is_one_line():
    message = r"^keras \S+ has no object\._apply_weight_decay, which ddkeras relies on; install keras==3\.15\.1$"
    with pytest.raises(ConfigError, match=message):
        optimizers.with_layerwise_rates(object)
