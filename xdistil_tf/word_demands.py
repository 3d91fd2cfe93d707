"""What flags and terms ask of a teacher's words, `masked_lm_top_k`, against what there is."""

from __future__ import annotations

from collections.abc import Sequence

from xdistil_tf import files, outputs, recipe
from xdistil_tf.objective import Objective
from xdistil_tf.teachers import LiveTeacher


def check(
    objective: Objective,
    top_k: int,
    temperatures: Sequence[float],
    asked: int | None,
    cache_folder: files.Path | None = None,
) -> None:
    """Compares what the terms of a stage compare with the words that a teacher gives.

    Args:
      objective: Of the stage.
      top_k: Words at each slot.
      temperatures: Other than 1; those that the words can be softened with.
      asked: The recipe's `teacher.top_k`.
      cache_folder: The cache that was given; `None` for a teacher that can be asked.

    Raises:
      ValueError: Names the term, what there is, and the cure.
    """
    where = "the teacher" if cache_folder is None else f"the teacher cache {cache_folder}"
    if asked not in (None, top_k):
        raise ValueError(
            f"The recipe says teacher.top_k={asked}, {where} has {top_k} words a slot. Leave the "
            "field out and set options.k of the term for fewer; make the cache again with "
            f"--top_k={asked} for more."
        )
    for term in objective.terms:
        if outputs.TOP_K not in term.teacher_request:
            continue
        if term.top_k is not None and term.top_k > top_k:
            cure = f"Set teacher.top_k={term.top_k}"
            if cache_folder is not None:
                cure = f"Make it again with --top_k={term.top_k}"
            raise ValueError(
                f"Term {term.name!r} compares {term.top_k} words (options.k), {where} has {top_k} "
                f"a slot. {cure}."
            )
        if term.temperature not in (1.0, *temperatures):
            kept = ",".join(f"{one:g}" for one in sorted({*temperatures, term.temperature}))
            raise ValueError(
                f"Term {term.name!r} has the temperature {term.temperature:g}, {where} has words "
                f"for {[1.0, *temperatures]}. Make it again with --temperatures={kept}."
            )


def check_vocabulary(objective: Objective, taught: int | None, learnt: int) -> None:
    """Checks that a student has every word that its teacher may name.

    Args:
      objective: Of a stage.
      taught: Words of the teacher's vocabulary.
      learnt: Words of the student's.

    Raises:
      ValueError: If a word of the teacher may be none of the student's.
    """
    if outputs.TOP_K in objective.teacher_request and taught is not None and taught > learnt:
        raise ValueError(
            f"The teacher names words of {taught}, the student knows {learnt}. Expected a student "
            f"with as many: --set model.vocab_size={taught}."
        )


def temperatures(config: recipe.Recipe) -> tuple[float, ...]:
    """Those other than 1 that any term of a recipe softens words with."""
    found = {
        term.temperature
        for stage in config.stages
        for term in stage.objective
        if term.loss == "top_k_cross_entropy"
    }
    return tuple(sorted(found - {1.0}))


def parse_temperatures(given: Sequence[str]) -> tuple[float, ...]:
    """What the flag `--temperatures` asks for, rising, without 1, which is always there.

    Raises:
      ValueError: If one is no positive number.
    """
    try:
        found = {float(one) for one in given}
    except ValueError:
        found = {0.0}
    if not all(0 < one < float("inf") for one in found):
        raise ValueError(
            f"Invalid --temperatures. Expected positive numbers such as 2.0. Received: {given}."
        )
    return tuple(sorted(found - {1.0}))


def check_flags(
    folder: str,
    teacher: LiveTeacher,
    request: outputs.Request,
    top_k: int | None,
    temperatures: Sequence[float],
) -> None:
    """Checks that a teacher has words to keep, and that flags about words mean something.

    Raises:
      ValueError: If it has no masked-LM head; or if there are such flags and no words.
    """
    if outputs.TOP_K not in request:
        if top_k is not None or temperatures:
            raise ValueError(
                f"--top_k and --temperatures are about {outputs.TOP_K}. Expected it among "
                f"--outputs. Received: {sorted(request)}."
            )
    elif outputs.TOP_K not in teacher.available:
        raise ValueError(
            f"The teacher {folder} has no masked-LM head, which {outputs.TOP_K} needs. Expected a "
            "pretrained encoder with its head, or the run folder of a continued pretraining."
        )
