r"""One pass of a teacher over records; its outputs are kept for every stage and student.

python bin/cache_teacher.py --teacher=runs/teacher --records='records/*' \
    --outputs=logits,representation --teacher_layer=6 --output_dir=cache
python bin/cache_teacher.py --teacher=runs/lm --records='records/*' \
    --outputs=masked_lm_top_k --top_k=10 --output_dir=soft
"""

from __future__ import annotations

import pathlib

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, preflight, teacher_pass, teaching, word_demands
from xdistil_tf.bin import shared_flags
from xdistil_tf.cache import write_cache
from xdistil_tf.cache_checks import check_tsv, verify, write_tsv
from xdistil_tf.cache_sources import check_source, source_of
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.slot_rows import SLOT_PRECISIONS
from xdistil_tf.interruption import Interruption
from xdistil_tf.models import folders

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_precision_flag()
    flags.DEFINE_string("teacher", None, "Model folder, run folder or hub name.", required=True)
    flags.DEFINE_string("records", None, "Glob of record shards of one folder.", required=True)
    flags.DEFINE_list(
        "outputs",
        "logits",
        "logits, representation, hidden, attention, masked_lm_top_k, next_sentence_logits.",
    )
    flags.DEFINE_list(
        "layers",
        None,
        "Layers of hidden and attention, counted from 1; 0: embeddings (hidden alone has them); "
        "negative: from the top.",
    )
    flags.DEFINE_integer(
        "teacher_layer", -1, "Layer of the representation; negative: from the top."
    )
    flags.DEFINE_string("output_dir", None, "The cache folder.", required=True)
    flags.DEFINE_integer("top_k", None, "Words of masked_lm_top_k at a slot. Default: 10.")
    flags.DEFINE_list("temperatures", [], "Other than 1, which those words may be softened with.")
    flags.DEFINE_enum(
        "cache_precision", "float16", SLOT_PRECISIONS, "Of what is kept; uint8: of words alone."
    )
    flags.DEFINE_integer(
        "batch_size", None, "Examples of a forward pass: 128; 32 for masked_lm_top_k.", 1
    )
    flags.DEFINE_integer("verify", 0, "Recompute so many random records and report.")
    flags.DEFINE_enum(
        "format", "sidecar", ["sidecar", "tsv"], "tsv: write the logits as text, too."
    )


def main(_) -> None:
    records = RecordSet(FLAGS.records)
    source = source_of(records)
    if FLAGS.format == "tsv":
        check_tsv(FLAGS.outputs, source.task_type)
    check_source(source, FLAGS.outputs)
    temperatures = word_demands.parse_temperatures(FLAGS.temperatures)
    folder, tokenizer = folders.find(FLAGS.teacher), source.tokenizer
    preflight.check_model(folder, "teacher", tokenizer, source.task, source.max_seq_length)
    words = (FLAGS.top_k, temperatures)
    tagging = source.task_type == "tagging"
    teacher = teaching.load_teacher(folder, FLAGS.teacher_layer, tagging, FLAGS.precision, *words)
    request = teacher_pass.parse_request(FLAGS.outputs, FLAGS.layers, teacher.depth)
    word_demands.check_flags(folder, teacher, request, *words)
    spec = teaching.cache_spec(
        folder, teacher, request, FLAGS.cache_precision, tokenizer.fingerprint
    )
    teaching.log_layer(folder, spec.layer, spec.depth)
    with Interruption().listening() as interruption:
        place = (FLAGS.output_dir, source.task_type, FLAGS.batch_size)
        kept = write_cache(teacher, spec, [records], *place, interruption)
    if FLAGS.verify:
        difference = verify(kept, teacher, records, FLAGS.verify)
        logging.info("Largest difference in %d recomputed records: %.3g.", FLAGS.verify, difference)
    if FLAGS.format == "tsv":
        path = pathlib.Path(FLAGS.output_dir) / "logits.tsv"
        write_tsv(kept, records, path)
        logging.info("Logits as text are in %s.", path)
    logging.info("The teacher cache is in %s.", FLAGS.output_dir)


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
