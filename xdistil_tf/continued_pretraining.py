"""Step 1 of XtremeDistil v1: the teacher-to-be goes on with its pretraining on text of the task.

text -> pretraining/text/ (without reported texts) -> pretraining/records/ -> pretraining/run/
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from xdistil_tf import files, recipe
from xdistil_tf.data.examples import Example
from xdistil_tf.data.pretraining import processes, write_pretraining_records
from xdistil_tf.data.pretraining.unseen_text import copy_without, text_keys
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.interruption import Interruption
from xdistil_tf.models import folders
from xdistil_tf.run import run

_MASKED_LM_PROB = 0.15  # Devlin et al., NAACL 2019, section 3.1.


def continue_pretraining(
    config: recipe.Recipe,
    source: str,
    text: Sequence[str],
    reported: Sequence[Example],
    folder: files.Path,
    interruption: Interruption | None = None,
    **training: Any,
) -> str:
    """Trains an encoder further on text; the same call goes on where a killed one was.

    Masks are drawn anew in each epoch.

    Args:
      config: A recipe with masked-LM terms on `corpus`.
      source: Model folder of the encoder.
      text: Globs of files, one sentence a line, an empty line between documents.
      reported: Examples whose texts are left out wherever they stand.
      folder: Where text, records and run go.
      interruption: Asked whether to save and stop.
      training: As `run` takes it.

    Returns:
      The model folder of the encoder.

    Raises:
      FileNotFoundError, ValueError: If text, encoder and recipe do not fit together.
    """
    if folders.head_kind(source) not in (None, "pretraining"):
        raise ValueError(
            f"{source} has a head of kind {folders.head_kind(source)!r}, which continued "
            "pretraining would lose. Expected an encoder, or leave --continue_pretraining out."
        )
    folder = pathlib.Path(folder)
    copies = copy_without(text, text_keys(reported), folder / "text")
    outputs = {term.output for stage in config.stages for term in stage.objective}
    write_pretraining_records(
        copies,
        load_tokenizer(source),
        folder / "records",
        max_seq_length=config.max_seq_length,
        max_predictions_per_seq=math.ceil(_MASKED_LM_PROB * config.max_seq_length),
        masked_lm_prob=_MASKED_LM_PROB,
        seed=config.seed,
        next_sentence="next_sentence_logits" in outputs,
        dynamic_masking=True,
        execute=processes.execution(0, interruption),
    )
    records = folder / "records"
    run(
        config,
        {"corpus": f"{records}/train-*", "heldout": f"{records}/heldout-*"},
        folder / "run",
        init_checkpoint=source,
        interruption=interruption,
        **training,
    )
    return folders.find(str(folder / "run"))
