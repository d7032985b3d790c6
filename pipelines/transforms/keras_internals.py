"""The one module of `pipelines` that relies on undocumented behaviour of Keras.

The random image layers of Keras keep their seed generators as attributes, which Keras does not document. Everything
else here is public API.
"""

import keras
from keras import ops

from pipelines.exceptions import DataError

SEEN_WITH = "3.15.1"  # the version of Keras whose layers were looked at


class KeyedSeeds(keras.random.SeedGenerator):
    """Seeds that follow from a key, in place of Keras's, which keep a variable that replicas would share."""

    def __init__(self, dtype: str, index: int):  # without super().__init__(), which creates the variable
        self.dtype, self.index = dtype, index

    def start(self, key) -> None:
        """Have the next seeds follow from `key`, an integer scalar."""
        self.key, self.count = ops.cast(key, self.dtype), 0

    def next(self, ordered: bool = True):
        """The next seed: integers (2,)."""
        seed = ops.stack([self.key, ops.cast(1000 * self.index + self.count, self.dtype)])
        self.count += 1
        return seed


def replace_seed_generators(layer: keras.layers.Layer) -> list[KeyedSeeds]:
    """Replace the seed generators of a random layer of Keras, and of the layers that it is made of.

    Seen with Keras 3.15.1: each layer has its generator, and its sublayers, as attributes.

    Raises:
        DataError: the installed version of Keras keeps some of them elsewhere.
    """
    owners = _owners(layer)
    # `variables` is public and contains the state of every generator; these layers have no other variables.
    if not owners or len(owners) != len(layer.variables):
        raise DataError(
            f"Keras {keras.__version__} does not keep the seed generators of {type(layer).__name__} where Keras "
            f"{SEEN_WITH} does; install that version: pip install keras=={SEEN_WITH}"
        )
    seeds = []
    for index, (owner, name) in enumerate(owners):
        seeds.append(KeyedSeeds(getattr(owner, name).state.dtype, index))
        object.__setattr__(owner, name, seeds[-1])  # bypassing Keras, which would look for the variable
    return seeds


def _owners(layer: keras.layers.Layer) -> list[tuple[keras.layers.Layer, str]]:
    """The layers that have a seed generator, and the names of these attributes: first `layer`, then its sublayers."""
    attributes = vars(layer).items()
    owners = [(layer, name) for name, value in attributes if isinstance(value, keras.random.SeedGenerator)]
    for _, value in attributes:
        if isinstance(value, keras.layers.Layer):
            owners += _owners(value)
    return owners
