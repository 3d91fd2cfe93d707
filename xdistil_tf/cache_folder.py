"""A finished teacher cache: what it was made from, what it holds, and its side-cars by feature."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from xdistil_tf import files, outputs
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.sidecars import SidecarReader
from xdistil_tf.data.slot_sidecars import SlotSidecarReader
from xdistil_tf.teachers import CachedTeacher

FORMAT = 2


@dataclasses.dataclass(frozen=True)
class CacheSpec:
    """What a cache is made from and holds.

    Attributes:
      request: Outputs kept.
      layer: The hidden layer that is the representation.
      depth: Blocks of the teacher.
      precision: `float16` or `bfloat16`, of what is kept; `uint8` for words, float16 beside them.
      teacher: Fingerprint of the teacher's weights.
      tokenizer: Fingerprint of the teacher's tokenizer.
      labels: The teacher's classes, in order.
      compute: `float32`, `bfloat16` or `mixed_float16`, of the pass.
      top_k: Words of `masked_lm_top_k`; `None` without.
      temperatures: Whose log-sum-exps are kept with the words.
    """

    request: outputs.Request
    layer: int | None
    depth: int | None
    precision: str
    teacher: str
    tokenizer: str
    labels: tuple[str, ...] = ()
    compute: str = "float32"
    top_k: int | None = None
    temperatures: tuple[float, ...] = ()

    def identity(self) -> dict:
        """As JSON; equal for equal caches."""
        request = {k: list(v) if v is not None else None for k, v in self.request.items()}
        content = dataclasses.asdict(self) | {"request": request, "labels": list(self.labels)}
        words = {name: content.pop(name) for name in ("top_k", "temperatures")}
        # Only where there are any: caches made before are still what they were.
        return content | (words | {"temperatures": list(self.temperatures)} if self.top_k else {})


class TeacherCache:
    """An open cache folder.

    Attributes:
      available: The outputs it holds, as a request.
      info: The content of `cache.json`.
    """

    def __init__(self, folder: files.Path):
        """Opens a cache.

        Raises:
          FileNotFoundError: If there is no cache.
          ValueError: If it is of another format or unfinished.
        """
        self.folder = pathlib.Path(folder)
        path = self.folder / "cache.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"No cache.json in {folder}. Make the cache with cache_teacher."
            )
        self.info = read_info(path)
        if not self.info["finished"]:
            raise ValueError(f"{folder} is not finished. Run cache_teacher again to complete it.")
        self.available = {
            key: tuple(layers) if layers is not None else None
            for key, layers in self.info["made_from"]["request"].items()
        }

    def teacher(self) -> CachedTeacher:
        """The teacher that this cache stands for."""
        return CachedTeacher(self.available)

    def readers(
        self, request: outputs.Request, records: RecordSet
    ) -> dict[str, SidecarReader | SlotSidecarReader]:
        """Feature name -> reader of the side-cars that belong to these record shards."""
        outputs.validate_request(request, self.available, f"teacher cache {self.folder}")
        return {
            name: _reader_of(name)([self._stem(path, name) for path in records.paths])
            for name in outputs.feature_names(request)
        }

    def covers(self, records: RecordSet) -> bool:
        """Whether every shard was cached, from the same content."""
        known = self.info["records"]
        return all(known.get(name) == s for name, s in records.shard_fingerprints().items())

    def _stem(self, shard: pathlib.Path, feature: str) -> pathlib.Path:
        return sidecar_stem(self.folder, shard, feature)


def sidecar_stem(folder: files.Path, shard: pathlib.Path, feature: str) -> pathlib.Path:
    """Shard `train-00000-of-00004.tfrecord` -> `<folder>/train-00000-of-00004.hidden.4`."""
    output = feature.removeprefix("teacher/").replace("/", ".")
    return pathlib.Path(folder) / f"{shard.stem}.{output}"


def read_info(path: pathlib.Path) -> dict[str, Any]:
    """The content of `cache.json`, finished or not.

    Raises:
      ValueError: If it is of another format.
    """
    info = files.read_json(path)
    if info.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {info.get('format')}. Expected {FORMAT}. Remove the folder and "
            "make the teacher cache again."
        )
    return info


def _reader_of(feature: str) -> type[SidecarReader] | type[SlotSidecarReader]:
    return SlotSidecarReader if feature == f"teacher/{outputs.TOP_K}" else SidecarReader
