r"""Scores a model on a split of a task folder, or on records, those of pretraining included.

python bin/evaluate.py --model_dir=runs/sst2 --task_dir=glue/SST-2 --task=sst-2 --split=dev \
    --output_json=metrics.json
python bin/evaluate.py --model_dir=runs/panx --split=dev --by_language
python bin/evaluate.py --model_dir=runs/small --teacher=runs/lm --records='records/heldout-*'
"""

from __future__ import annotations

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, evaluate, evaluate_pretraining, evaluate_tags, files
from xdistil_tf.bin import shared_flags

FLAGS = flags.FLAGS
_OF_TASKS = ("by_language", "plot_file", "errors_file", "languages")


def define_flags() -> None:
    shared_flags.define_task_flags(required=False)
    shared_flags.define_precision_flag()
    flags.DEFINE_string("model_dir", None, "Model, run or distill folder.", required=True)
    flags.DEFINE_string("split", "dev", "Split of the task folder.")
    flags.DEFINE_string("records", None, "Record shards; default: a distill folder's own.")
    flags.DEFINE_string("teacher", None, "Compared with the model, on its records or its task.")
    flags.DEFINE_list("languages", [], "Only examples of these. Default: all.")
    flags.DEFINE_bool("by_language", False, "Show a table with a row for each language.")
    flags.DEFINE_string("errors_file", None, "Tagging: every wrong span, as TSV.")
    flags.DEFINE_string("plot_file", None, "Bars for each language: .png, .svg or .pdf.")
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Examples of a forward pass. Default: 128; 32 of pretraining records.",
        lower_bound=1,
    )
    flags.DEFINE_string("output_json", None, "Where the figures go; default: standard log only.")


def main(_) -> None:
    if FLAGS.task_dir and FLAGS.records:
        raise ValueError("Expected at most one of --task_dir and --records.")
    files.require_folder(FLAGS.model_dir, "a model, run or distill folder")
    if not FLAGS.task_dir and not FLAGS.records:
        FLAGS.records = evaluate.own_records(FLAGS.model_dir, FLAGS.split)
    evaluate_tags.check_files(FLAGS.errors_file, FLAGS.plot_file, bool(FLAGS.task_dir))
    result = _scored()
    logging.info("%s, %d examples: %s", result["split"], result["examples"], _figures(result))
    if "teacher" in result:
        logging.info("Teacher: %s", _figures(result["teacher"]))
    if FLAGS.output_json:
        files.write_json(FLAGS.output_json, result)
        logging.info("The figures are in %s.", FLAGS.output_json)
    evaluate_tags.show(result, FLAGS.by_language, FLAGS.plot_file)


def _scored() -> dict:
    pretraining = FLAGS.records and evaluate_pretraining.is_pretraining(FLAGS.records)
    if pretraining:
        if wrong := [f"--{name}" for name in _OF_TASKS if FLAGS[name].value]:
            raise ValueError(f"{FLAGS.records} has no task. Leave out {', '.join(wrong)}.")
        return evaluate_pretraining.evaluate_pretraining(
            FLAGS.model_dir, FLAGS.records, FLAGS.teacher, FLAGS.precision, FLAGS.batch_size or 32
        )
    result = _on_task(FLAGS.model_dir, evaluate_tags.judge(FLAGS.errors_file))
    if FLAGS.teacher:
        theirs = _on_task(FLAGS.teacher, None)
        result["teacher"] = {key: theirs[key] for key in ("model", "metrics", "by_language")}
    return result


def _figures(result: dict) -> str:
    beside = {key: result[key] for key in ("agreement", "kl_divergence") if key in result}
    return ", ".join(f"{name} {value:.4f}" for name, value in (result["metrics"] | beside).items())


def _on_task(model_dir: str, judge: evaluate.Judge | None) -> dict:
    model = evaluate.EvaluatedModel(model_dir, FLAGS.precision, FLAGS.batch_size or 128)
    if FLAGS.records:
        return model.on_records(FLAGS.records, judge, FLAGS.languages)
    return model.on_task(
        FLAGS.task_dir,
        FLAGS.task if FLAGS["task"].present else None,
        FLAGS.split,
        shared_flags.columns(),
        FLAGS.max_bad_rows,
        FLAGS.languages,
        judge,
    )


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
