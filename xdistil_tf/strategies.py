"""Distribution strategies by name, and which part of the work a process has."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

NAMES = ("one_device", "mirrored", "multi_worker_mirrored")
_CLUSTER = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Worker:
    """One process of a run: the whole of it, or one of several on a shared file system.

    Attributes:
      index: Which one; 0 writes all that is kept.
      count: Of how many.
    """

    index: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        return self.index == 0


def worker_of(strategy: tf.distribute.Strategy) -> Worker:
    """The place of this process among the strategy's."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return Worker()
    return Worker(resolver.task_id or 0, max(len(resolver.cluster_spec().as_dict()["worker"]), 1))


def agreed(strategy: tf.distribute.Strategy, value: float) -> float:
    """Worker 0's value, on all workers, which must call this together.

    What a run decides by (a held-out value, a wish to stop) must be one and the same for all:
    machines may round differently, and signals reach one of them.
    """
    worker = worker_of(strategy)
    if worker.count == 1:
        return value
    return _summed(strategy, value if worker.writes else 0.0)


def any_of(strategy: tf.distribute.Strategy, wish: bool) -> bool:
    """Whether one of the workers, which must call this together, says so."""
    if worker_of(strategy).count == 1:
        return wish
    return _summed(strategy, float(wish)) > 0


def _summed(strategy: tf.distribute.Strategy, value: float) -> float:
    # Each worker counts once, however many replicas it has.
    local = strategy.num_replicas_in_sync // worker_of(strategy).count
    shares = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(
            value if context.replica_id_in_sync_group % local == 0 else 0.0, tf.float64
        )
    )
    return float(strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None))


def make_strategy(
    name: str = "one_device", num_replicas: int = 0, worker_timeout: int = 120
) -> tf.distribute.Strategy:
    """Creates a strategy; call it before anything else uses TensorFlow.

    Args:
      name: `one_device`; `mirrored`: the same variables on every replica; or
        `multi_worker_mirrored`: on the replicas of all processes that TF_CONFIG names.
      num_replicas: 0 takes all visible GPUs. Without a GPU, so many logical CPU devices are made.
        Of several workers each takes all of its GPUs, or one CPU.
      worker_timeout: Seconds after which a worker that is silent counts as dead.

    Raises:
      ValueError: If the name is unknown, one device is asked for several replicas, there are
        fewer GPUs than replicas, or TF_CONFIG does not describe the workers.
    """
    if name not in NAMES:
        raise ValueError(
            f"Unknown distribution strategy. Expected one of {NAMES}. Received: {name!r}."
        )
    if name == "multi_worker_mirrored":
        return _multi_worker(num_replicas, worker_timeout)
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


def _multi_worker(num_replicas: int, worker_timeout: int) -> tf.distribute.Strategy:
    if num_replicas:
        raise ValueError(
            "Each worker takes all of its GPUs, or one CPU. Expected --num_replicas=0. Received: "
            f"{num_replicas}."
        )
    cluster = _cluster(os.environ.get("TF_CONFIG", ""))
    _set_heartbeat(cluster, worker_timeout)
    # Rings work with and without GPUs, and sum in one order.
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.RING
    )
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _cluster(text: str) -> Mapping[str, Any]:
    """The content of TF_CONFIG.

    Raises:
      ValueError: If it does not name the workers and which of them this process is.
    """
    try:
        config = json.loads(text or "{}")
        workers, task = config["cluster"]["worker"], config["task"]
        sound = task["type"] == "worker" and 0 <= int(task["index"]) < len(workers)
        sound = sound and set(config["cluster"]) == {"worker"}
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise ValueError(
            "multi_worker_mirrored needs the environment variable TF_CONFIG. "
            f"Expected {_CLUSTER}, with another index on each machine. Received: {text!r}."
        )
    return config


def _set_heartbeat(cluster: Mapping[str, Any], seconds: int) -> None:
    """Makes the service that notices dead workers notice within `seconds`."""
    # TensorFlow offers this inside only; its strategy would set the service up without a timeout.
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2 as protos
    from tensorflow.python.eager import context

    workers = cluster["cluster"]["worker"]
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/task:0",
        coordinated_jobs=[protos.CoordinatedJob(name="worker", num_tasks=len(workers))],
        heartbeat_timeout_in_ms=1000 * seconds,
        cluster_register_timeout_in_ms=1000 * max(seconds, 60),
    )
