"""A tiny labelled task with everything that stands on it, made once a session (a pytest plugin).

pytest_plugins = ["tests.small_task"]    # in a test module
def test_something(small): ... small.records("train") ...
"""

import dataclasses
import pathlib

import pytest

from xdistil_tf import cache, recipe, teaching
from xdistil_tf.data import synthetic
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.data.task_records import Options, create_task_records
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.models import folders
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.pretrained import save_encoder
from xdistil_tf.trainer import TrainerOptions

ENCODER = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
BILSTM = {"kind": "bilstm", "embedding": {"source": "random", "dim": 8}, "lstm_units": 8}
RECORDS = Options(max_seq_length=32, heldout_rows=40, num_shards=2)
OPTIONS = TrainerOptions(steps_per_loop=2, checkpoint_interval=2, progress=False)


@dataclasses.dataclass(frozen=True)
class SmallTask:
    """Where everything is: raw task folders, encoder folders, records."""

    root: pathlib.Path
    tokenizer: Tokenizer
    task_dir: pathlib.Path
    encoder: str  # Without a head.
    teacher: str  # With a head of random weights for the task's classes.
    info: TaskInfo

    def data(self) -> dict[str, str]:
        """What `run` binds."""
        return {name: self.info.pattern(name) for name in ("train", "transfer", "heldout")}

    def records(self, split: str) -> RecordSet:
        return RecordSet(self.info.pattern(split))


def stage(**fields) -> dict:
    """A stage of four updates on the transfer texts."""
    return {
        "name": "logits",
        "data": "transfer",
        "objective": [{"loss": "mean_squared_error", "output": "logits"}],
        "steps": 4,
        "batch_size": 16,
    } | fields


def student_recipe(*stages: dict, **fields) -> recipe.Recipe:
    """A BiLSTM with eight units that learns from the last layer of a teacher."""
    content = {
        "model": BILSTM,
        "teacher": {"mode": "cached"},
        "max_seq_length": 32,
        "stages": list(stages) or [stage()],
    }
    return recipe.Recipe.model_validate(content | fields)


def unlabelled(small: SmallTask, folder: pathlib.Path) -> str:
    """Records of texts that train does not have, so that nobody knows their labels."""
    path = write_lines(folder / "unknown.txt", [f"the soup was odd {n}" for n in range(8)])
    info = create_task_records(
        small.task_dir, "classification", small.tokenizer, folder / "unknown", str(path), RECORDS
    )
    return info.pattern("transfer")


def encoder_folder(
    folder: pathlib.Path, tokenizer: Tokenizer, head: dict | None = None, labels=None, **changes
) -> str:
    """Writes a tiny encoder of random weights with its tokenizer."""
    config = ENCODER | {"vocab_size": tokenizer.vocab_size, "head": head} | changes
    save_encoder(Encoder.from_config_dict(config, seed=1), str(folder), labels=labels)
    tokenizer.save(folder)
    return str(folder)


def make_cache(small: SmallTask, folder: pathlib.Path, layer: int = -1, **request):
    """A cache of the small teacher's logits and representation over all bound data."""
    teacher = teaching.load_teacher(small.teacher, layer, False)
    spec = teaching.cache_spec(
        small.teacher,
        teacher,
        request or {"logits": None, "representation": None},
        "float16",
        small.tokenizer.fingerprint,
    )
    sets = [small.records(name) for name in small.data()]
    return cache.write_cache(teacher, spec, sets, folder)


def write_lines(path: pathlib.Path, lines) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def without_test(small: SmallTask, folder: pathlib.Path) -> pathlib.Path:
    """A copy of the task folder in which dev is what is reported."""
    folder.mkdir(parents=True)
    for name in ("train.tsv", "dev.tsv", "labels.tsv"):
        (folder / name).write_bytes((small.task_dir / name).read_bytes())
    return folder


def with_encoders(root, tokenizer, task_dir, info) -> SmallTask:
    """Adds an encoder without a head, and one with the task's, both of random weights."""
    head = {"kind": info.task_type, "num_labels": len(info.labels)}
    return SmallTask(
        root,
        tokenizer,
        task_dir,
        encoder_folder(root / "encoder", tokenizer),
        encoder_folder(root / "teacher", tokenizer, head, info.labels, initializer_range=0.3),
        info,
    )


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> SmallTask:
    root = tmp_path_factory.mktemp("small")
    task_dir = root / "task"
    synthetic.generate_task(task_dir, num_train=200, num_dev=48, num_test=48, num_transfer=96)
    texts = [task_dir / "train.tsv", task_dir / "transfer.txt"]
    synthetic.train_wordpiece(texts, 500, root / "tokenizer")
    tokenizer = load_tokenizer(root / "tokenizer")
    info = create_task_records(
        task_dir,
        "classification",
        tokenizer,
        root / "records",
        str(task_dir / "transfer.txt"),
        RECORDS,
    )
    return with_encoders(root, tokenizer, task_dir, info)


@pytest.fixture(scope="session")
def small_cache(small, tmp_path_factory):
    """The teacher's logits and representation, cached once."""
    return make_cache(small, tmp_path_factory.mktemp("cache") / "cache")


@pytest.fixture(scope="session")
def trained(small, small_cache, tmp_path_factory):
    """The run folder of a student after two stages."""
    from xdistil_tf.run import run

    folder = tmp_path_factory.mktemp("trained") / "run"
    config = student_recipe(
        stage(evaluate={"data": "heldout"}),
        stage(name="labels", data="train", objective=[{"loss": "task"}]),
    )
    run(
        config,
        small.data(),
        folder,
        teacher=small.teacher,
        teacher_cache=str(small_cache.folder),
        options=OPTIONS,
    )
    return folders.find(str(folder)) and folder
