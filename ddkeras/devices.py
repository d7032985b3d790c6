"""What the machine has, and what follows from it."""

import tensorflow as tf


def xla_pays() -> bool:
    """Whether to compile with XLA: yes with a GPU; on a CPU it trains these networks four to five times slower."""
    return bool(tf.config.list_physical_devices("GPU"))
