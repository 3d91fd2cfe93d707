"""Which teacher a run has: none, a live model, or the cache of one; and what it costs to keep."""

from __future__ import annotations

import functools
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from absl import logging

from xdistil_tf import cache, cache_rows, files, joined_cache, outputs, recipe, word_demands
from xdistil_tf.data.pretraining import dynamic
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.data.tokenization import has_tokenizer, load_tokenizer
from xdistil_tf.interruption import Interruption
from xdistil_tf.models import folders, pretrained
from xdistil_tf.objective import Objective
from xdistil_tf.teachers import LiveTeacher


def load_teacher(
    folder: str,
    layer: int,
    tagging: bool,
    precision: str = "float32",
    top_k: int | None = None,
    temperatures: Sequence[float] = (),
) -> LiveTeacher:
    """A live teacher from a model folder.

    Raises:
      FileNotFoundError, ValueError: If the folder holds no complete model, no such layer, or not
        as many words.
    """
    model = folders.load_model(folder, precision, only_run=True)
    return LiveTeacher(model, layer, tagging, top_k, temperatures)


def cache_spec(
    folder: str, teacher: LiveTeacher, request: outputs.Request, precision: str, tokenizer: str
) -> cache.CacheSpec:
    """What a cache of this teacher's outputs is made from.

    Args:
      folder: The teacher's model folder.
      teacher: The model of that folder.
      request: What is kept.
      precision: `float16` or `bfloat16`, of what is kept; `uint8` for words.
      tokenizer: Fingerprint of the records' tokenizer, for a folder that holds none.

    Raises:
      ValueError: If the precision is for words, and none are kept.
    """
    words = outputs.TOP_K in request
    if precision == "uint8" and not words:
        raise ValueError(
            f"uint8 is for {outputs.TOP_K} alone. Expected --cache_precision=float16 or bfloat16 "
            f"for {sorted(request)}. Received: uint8."
        )
    if has_tokenizer(folder):
        tokenizer = load_tokenizer(folder).fingerprint
    return cache.CacheSpec(
        request=request,
        layer=teacher.layer if "representation" in request else None,
        depth=teacher.depth,
        precision=precision,
        teacher=pretrained.weights_fingerprint(folder),
        tokenizer=tokenizer,
        labels=folders.class_names(folder) or (),
        compute=teacher.precision,
        top_k=teacher.top_k if words else None,
        temperatures=teacher.temperatures if words else (),
    )


class Teaching:
    """The teacher of a run.

    Args:
      config: The recipe.
      folder: The teacher's model folder, or `None`.
      cache_folder: A cache made before, or `None`.
      task: Tells tagging from sentence tasks; `None` for records of pretraining.
      tokenizer: Fingerprint of the records' tokenizer; empty where nobody knows it.
    """

    def __init__(
        self,
        config: recipe.Recipe,
        folder: str | None,
        cache_folder: str | None,
        task: TaskInfo | None,
        tokenizer: str = "",
    ):
        if (folder or cache_folder) and config.teacher is None:
            raise ValueError(
                "A teacher was given, but the recipe has none. Add `teacher: {}` to the recipe, or "
                "leave --teacher and --teacher_cache out."
            )
        self._config = config
        self._folder = folder
        self._task = task
        self._tokenizer = tokenizer
        self._task_type = task.task_type if task else None
        self._live: LiveTeacher | None = None
        self._cache = cache.TeacherCache(cache_folder) if cache_folder else None
        if self._cache is not None:
            self._check_cache()
            made_from = self._cache.info["made_from"]
            log_layer(f"cache {cache_folder}", made_from["layer"], made_from["depth"])
        elif folder is not None:
            self._live = load_teacher(
                folder,
                config.teacher.layer,
                self._task_type == "tagging",
                config.precision,
                config.teacher.top_k,
                word_demands.temperatures(config),
            )
            if _compares_layer(config):
                log_layer(folder, self._live.layer, self._live.depth)

    @property
    def available(self) -> outputs.Request | None:
        """What the teacher can give; `None` without a teacher."""
        if self._live is not None:  # Also where some of it is cached.
            return self._live.available
        return self._cache.available if self._cache is not None else None

    @property
    def depth(self) -> int | None:
        """Blocks of the teacher, also where a cache holds only lower ones."""
        if self._cache is not None:
            return self._cache.info["made_from"]["depth"]
        return self._live.depth if self._live is not None else None

    @property
    def width(self) -> int | None:
        """Width of its representation; `None` where neither a folder nor a cache tells it."""
        if self._folder is not None:
            return folders.width(self._folder)
        kept = self._cache.info["outputs"] if self._cache is not None else {}
        rows = (
            row
            for name, row in kept.items()
            if name == "teacher/representation" or name.startswith("teacher/hidden/")
        )
        return next((row["shape"][-1] for row in rows), None)

    @property
    def vocab_size(self) -> int | None:
        """Words that `masked_lm_top_k` may name; `None` without it."""
        if self._cache is not None:
            row = self._cache.info["outputs"].get(f"teacher/{outputs.TOP_K}")
            return row["vocab_size"] if row else None
        known = self._live is not None and outputs.TOP_K in self._live.available
        return self._live.vocab_size if known else None

    def settle(
        self,
        objectives: Sequence[tuple[Objective, Sequence[RecordSet]]],
        folder: files.Path,
        interruption: Interruption | None = None,
    ) -> None:
        """Makes the cache, where the recipe wants one and none was given.

        Args:
          objectives: Each stage's objective with the data that its terms see.
          folder: Where the cache goes.
          interruption: Asked after each shard whether to stop.

        Raises:
          ValueError: If a cache that was given has another layer, or other records; or if a file
            of the cache is damaged.
        """
        if self._cache is not None:
            self._check_demands(objectives)
        elif self._live is not None:
            self._make_cache(objectives, folder, interruption)
        for objective, sets in objectives:
            for records in sets:
                self.sidecars(objective, records)  # Opened once now: damage is found here.

    def _make_cache(self, objectives, folder: files.Path, interruption) -> None:
        demands = [(one.teacher_request, sets) for one, sets in objectives if one.teacher_request]
        request = self._cached_outputs(demands, folder)
        if not request:
            return
        used = {
            id(records): records
            for wanted, sets in demands
            if _within(wanted, request)
            for records in sets
        }
        spec = cache_spec(
            self._folder,
            self._live,
            request,
            self._config.teacher.precision,
            self._tokenizer,
        )
        self._cache = cache.write_cache(
            self._live,
            spec,
            list(used.values()),
            folder,
            self._task_type,
            interruption=interruption,
        )

    def teacher(self, objective: Objective):
        """The callable for the trainer, or `None` where no term needs one.

        Raises:
          ValueError: If a term asks for more words than there are, or softens them otherwise.
        """
        if not objective.teacher_request:
            return None
        if outputs.TOP_K in objective.teacher_request:
            asked, cached = self._config.teacher.top_k, self._cache
            folder = cached.folder if cached is not None and self._live is None else None
            word_demands.check(objective, *self._words, asked, folder)
        return self._cache.teacher() if self._is_cached(objective) else self._live

    def sidecars(self, objective: Objective, records: RecordSet) -> dict[str, Any]:
        """Readers of the cached outputs that an objective needs, by feature name."""
        if not objective.teacher_request or not self._is_cached(objective):
            return {}
        return self._cache.readers(objective.teacher_request, records)

    def identity(self, objective: Objective) -> str | None:
        """A fingerprint of what the teacher says: weights, precision, and the layer compared."""
        if not objective.teacher_request:
            return None
        compares_layer = "representation" in objective.teacher_request
        words = [self._words[0]] if outputs.TOP_K in objective.teacher_request else []
        if self._is_cached(objective):
            made_from = self._cache.info["made_from"]
            layer = made_from["layer"] if compares_layer else None
            fields = (made_from[name] for name in ("teacher", "precision", "compute"))
            return files.fingerprint([*fields, layer, *words])
        layer = self._live.layer if compares_layer else None
        return files.fingerprint([self._weights, "live", layer, *words])

    @property
    def _words(self) -> tuple[int | None, tuple[float, ...]]:
        """How many words a slot has, and the temperatures other than 1 that they have."""
        if self._cache is not None:
            made_from = self._cache.info["made_from"]
            return made_from.get("top_k"), tuple(made_from.get("temperatures", ()))
        return self._live.top_k, self._live.temperatures

    @functools.cached_property
    def _weights(self) -> str:
        return pretrained.weights_fingerprint(self._folder)

    def _check_cache(self) -> None:
        made_from = self._cache.info["made_from"]
        if self._tokenizer not in ("", made_from["tokenizer"]):
            raise ValueError(
                f"The teacher cache {self._cache.folder} belongs to another tokenizer than the "
                "records. Make it again with cache_teacher."
            )
        known = [one["teacher"] for one in made_from.get("teachers", ())]
        if self._folder and self._weights not in (made_from["teacher"], *known):
            raise ValueError(
                f"The teacher cache {self._cache.folder} was made from other weights than "
                f"{self._folder}. Make it again with cache_teacher."
            )
        if self._task and folders.in_another_order(made_from["labels"], self._task.labels):
            raise ValueError(
                f"The teacher cache {self._cache.folder} has the classes {made_from['labels']}, "
                f"the records have {list(self._task.labels)}. Make it again from a teacher with "
                "the records' order, as distill writes it."
            )

    def _check_demands(self, objectives: Sequence[tuple[Objective, Sequence[RecordSet]]]) -> None:
        made_from = self._cache.info["made_from"]
        for objective, sets in objectives:
            joined_cache.check_terms(objective, made_from, self._cache.folder)
            if "representation" in objective.teacher_request and made_from["layer"] is not None:
                asked = outputs.resolve_layer(self._config.teacher.layer, made_from["depth"])
                if asked != made_from["layer"]:
                    raise ValueError(
                        f"The recipe compares layer {asked} (teacher.layer), the teacher cache "
                        f"{self._cache.folder} holds layer {made_from['layer']}. Set "
                        "--teacher_layer, or make the cache again."
                    )
            for records in sets if objective.teacher_request else ():
                if not self._cache.covers(records):
                    raise ValueError(
                        f"The teacher cache {self._cache.folder} was not made from the records "
                        f"{records.paths[0]}. Make it again with cache_teacher."
                    )

    def _is_cached(self, objective: Objective) -> bool:
        """Whether a stage reads all that it compares from the cache; else the teacher is live."""
        if self._cache is None:
            return False
        return self._live is None or _within(objective.teacher_request, self._cache.available)

    def _cached_outputs(
        self, demands: Sequence[tuple[outputs.Request, Sequence[RecordSet]]], folder: files.Path
    ) -> outputs.Request:
        """What is cached; what `auto` chose stays, so that a resumed run agrees."""
        everything = outputs.merge_requests(*(request for request, _ in demands))
        if self._config.teacher.mode == "auto":  # What no cache keeps is asked for live.
            everything.pop("masked_lm_logits", None)
        mode, kept = self._config.teacher.mode, pathlib.Path(folder) / "mode.json"
        sets = [records for _, some in demands for records in some]
        changing = next((one for one in sets if dynamic.draws_masks(one)), None)
        if changing is not None and mode == "cached":
            raise ValueError(
                f"The recipe says teacher.mode: cached, and the masks of {changing.paths[0]} are "
                "drawn each time it is read. Set teacher.mode: live, or create records without "
                "--dynamic_masking."
            )
        if changing is not None or mode == "live":
            return {}
        if mode == "cached" or not everything:
            return everything
        if not kept.is_file():
            begun = (kept.parent / "cache.json").is_file()
            chosen = everything if begun else self._fitting(demands, everything, folder)
            names = {True: "cached", False: "partly" if chosen else "live"}
            files.write_json(kept, {"mode": names[chosen == everything], "outputs": sorted(chosen)})
        known = files.read_json(kept)
        if known["mode"] != "partly":
            return everything if known["mode"] == "cached" else {}
        return {key: layers for key, layers in everything.items() if key in known["outputs"]}

    def _fitting(
        self,
        demands: Sequence[tuple[outputs.Request, Sequence[RecordSet]]],
        everything: outputs.Request,
        folder: files.Path,
    ) -> outputs.Request:
        """All outputs if they fit on the disk, else those of one row an example; or none."""
        small = {key: layers for key, layers in everything.items() if layers is None}
        for request, what in ((everything, "all outputs"), (small, "outputs without layers")):
            used = [
                records for wanted, sets in demands if _within(wanted, request) for records in sets
            ]
            used = list({id(one): one for one in used}.values())
            if used and self._fits(request, used, folder, what):
                return request
        return {}

    def _fits(
        self, request: outputs.Request, used: Sequence[RecordSet], folder: files.Path, what: str
    ) -> bool:
        rows = cache_rows.kept_rows(self._live, request, self._task_type)
        planned = cache_rows.planned_bytes(rows, used, self._config.teacher.precision)
        place = pathlib.Path(folder).absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        # Half of the disk stays for checkpoints and everybody else.
        fits = planned < free / 2
        logging.info(
            "Teacher mode auto: a cache of %s takes %.2f GB of %.2f GB free: %s.",
            what,
            planned / 1e9,
            free / 1e9,
            "cached" if fits else "too much",
        )
        return fits


def _within(request: outputs.Request, available: outputs.Request) -> bool:
    """Whether every output, at every layer, is among those that are available."""
    return all(
        key in available and (layers is None or set(layers) <= set(available[key] or ()))
        for key, layers in request.items()
    )


def _compares_layer(config: recipe.Recipe) -> bool:
    terms = [term for stage in config.stages for term in stage.objective]
    return any("representation" in (term.output, term.target_output) for term in terms)


def log_layer(teacher: str, layer: int | None, depth: int | None) -> None:
    """Says which layer the representation is; nothing where none is kept."""
    if layer is not None:
        logging.info("Teacher %s: layer %d of %d is compared.", teacher, layer, depth)
