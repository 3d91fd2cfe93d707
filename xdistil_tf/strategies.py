"""Distribution strategies by name."""

from __future__ import annotations

import tensorflow as tf

NAMES = ("one_device", "mirrored")


def make_strategy(name: str = "one_device", num_replicas: int = 0) -> tf.distribute.Strategy:
    """Creates a strategy; call it before anything else uses TensorFlow.

    Args:
      name: `one_device`, or `mirrored`: the same variables on every replica.
      num_replicas: 0 takes all visible GPUs. Without a GPU, so many logical CPU devices are made.

    Raises:
      ValueError: If the name is unknown, one device is asked for several replicas, or there are
        fewer GPUs than replicas.
    """
    if name not in NAMES:
        raise ValueError(
            f"Unknown distribution strategy. Expected one of {NAMES}. Received: {name!r}."
        )
    gpus = tf.config.list_physical_devices("GPU")
    if name == "one_device":
        if num_replicas > 1:
            raise ValueError(
                f"Expected one replica on one device. Received: num_replicas={num_replicas}. Add "
                "--distribution_strategy=mirrored."
            )
        return tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")
    if gpus:
        count = num_replicas or len(gpus)
        if count > len(gpus):
            raise ValueError(
                f"Expected at most {len(gpus)} replicas, one a GPU. Received: {count}."
            )
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(count)])
    return tf.distribute.MirroredStrategy(_logical_cpus(num_replicas or 1))


def _logical_cpus(count: int) -> list[str]:
    cpu = tf.config.list_physical_devices("CPU")[0]
    present = tf.config.get_logical_device_configuration(cpu)
    if not present or len(present) < count:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError as error:
            raise ValueError(
                f"{count} logical CPU devices cannot be made any more: TensorFlow is in use "
                "already. Make the strategy first."
            ) from error
    return [f"CPU:{i}" for i in range(count)]
