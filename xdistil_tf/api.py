"""The public names, for `import xdistil_tf.api as xd`.

    config = xd.load_recipe("configs/bert/finetune.yaml", ["stages.0.epochs=2"])
    xd.run(config, {"train": "records/train-*", "heldout": "records/heldout-*"}, "runs/teacher",
           init_checkpoint="bert-base-uncased")

Modules may move; these names stay.
"""

from xdistil_tf.cache import CacheSpec, TeacherCache, write_cache
from xdistil_tf.data.corpus.prepare import Options as CorpusOptions
from xdistil_tf.data.corpus.prepare import prepare_corpus
from xdistil_tf.data.pretraining import write_pretraining_records
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_records import create_task_records
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.distill import distill
from xdistil_tf.evaluate import EvaluatedModel
from xdistil_tf.evaluate_pretraining import evaluate_pretraining
from xdistil_tf.export.model_folder import export_model_folder
from xdistil_tf.export.parity import load_exported
from xdistil_tf.job import Job
from xdistil_tf.models.folders import load_model, save_model
from xdistil_tf.objective import Objective
from xdistil_tf.predict import Predictor
from xdistil_tf.recipe import Evaluate, Optimizer, Recipe, Stage, Term
from xdistil_tf.recipe_files import load_recipe
from xdistil_tf.run import run
from xdistil_tf.strategies import make_strategy
from xdistil_tf.study import Study, run_study
from xdistil_tf.teachers import AverageTeacher, CachedTeacher, LiveTeacher
from xdistil_tf.trainer import Trainer, TrainerOptions

__all__ = [
    "AverageTeacher",
    "CacheSpec",
    "CachedTeacher",
    "CorpusOptions",
    "EvaluatedModel",
    "Evaluate",
    "Job",
    "LiveTeacher",
    "Objective",
    "Optimizer",
    "Predictor",
    "Recipe",
    "RecordSet",
    "Stage",
    "Study",
    "TeacherCache",
    "Term",
    "Trainer",
    "TrainerOptions",
    "create_task_records",
    "distill",
    "evaluate_pretraining",
    "export_model_folder",
    "load_exported",
    "load_model",
    "load_recipe",
    "load_tokenizer",
    "make_strategy",
    "prepare_corpus",
    "run",
    "run_study",
    "save_model",
    "write_cache",
    "write_pretraining_records",
]
