"""The rules of the house: no assert, print or bare except; imports point down only."""

import ast
import pathlib

import pytest

import xdistil_tf

PACKAGE = pathlib.Path(xdistil_tf.__file__).parent
SOURCES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in ("bin", "configs")
)
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
BINARIES = sorted((PACKAGE.parent / "bin").glob("*.py"))

# What a module may import is what stands on a lower level; docs/architecture.md has the table.
# A folder stands for all of its files, which may know each other.
PLAIN = ("files", "interruption", "outputs", "recipe", "losses", "layer_maps", "metrics")
PLAIN += (
    "with_tensorflow",
    "versions",
    "model_places",
    "strategies",
    "gradients",
    "recipes",
    "config_errors",
    "__init__",
)
LEVELS = {name: 0 for name in PLAIN} | {"recipe": 0.5, "recipe_files": 0.6}
LEVELS |= {"losses": 0.5, "top_k_loss": 0.2, "crf": 0.2, "cache_sources": 2, "cache_rows": 2}
LEVELS |= {"word_demands": 2, "cache_folder": 2.5, "cache_checks": 3.1}
LEVELS |= {"terms": 1, "command_line": 1, "summaries": 1, "optimizers": 1, "checkpoints": 1}
LEVELS |= {"stage_parts": 1, "teachers": 1, "models": 1, "data": 1}
LEVELS |= {"objective": 1.5, "updates": 1.8, "trainer": 2}
LEVELS |= {
    "continued_pretraining": 3.5,
    "pretraining_study": 4.6,
    "beam": 1.5,
    "pretraining_scores": 1,
    "evaluate_pretraining": 3.2,
    "evaluate_tags": 3.1,
    "tag_decoding": 2.9,
    "predict_tags": 3.05,
}
LEVELS |= {
    "bound_data": 3,
    "predictions": 2.95,
    "stage_scorer": 3,
    "evaluate": 3,
    "teacher_pass": 2.5,
    "cache": 3,
    "export": 3.15,
    "start": 3,
}
LEVELS |= {
    "start_encoder": 2.9,
    "recipe_checks": 3,
    "augmented_file": 3.05,
    "augment": 3.1,
    "augment_rules": 3.1,
    "glue_submission": 3.2,
    "distill_tasks": 4.2,
}
LEVELS |= {"preflight": 3.1, "predict": 3.1, "teaching": 3.1, "report": 3.2}
LEVELS |= {"stages": 3.2, "run": 3.3}
LEVELS |= {
    "teacher_weights": 1,
    "joined_cache": 3.05,
    "job": 3.4,
    "task_teacher": 3.6,
    "several_teachers": 3.7,
}
LEVELS |= {"baseline": 3, "distill": 4, "study_results": 4.4, "study": 4.5, "api": 5}


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree):
    """First component below the package of everything imported from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xdistil_tf"):
            rest = node.module.split(".")[1:]
            yield from [rest[0]] if rest else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("xdistil_tf"):
                    yield (alias.name.split(".")[1:] or ["__init__"])[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_assert_print_or_bare_except(path):
    for node in ast.walk(TREES[path]):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{where} asserts"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{where}: except:"
        called = node.func if isinstance(node, ast.Call) else None
        assert not (isinstance(called, ast.Name) and called.id == "print"), f"{where} prints"


def test_every_module_has_a_level():
    assert {module_of(path) for path in SOURCES} == set(LEVELS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_only(path):
    own = module_of(path)
    for other in imports(TREES[path]):
        if other in (own, "configs", "__init__", "__version__"):
            continue
        assert LEVELS[other] < LEVELS[own], f"{path} imports {other}, which is not below it"


def test_the_trainer_knows_no_file_format_model_or_method():
    source = (PACKAGE / "trainer.py").read_text(encoding="utf-8").lower()
    for word in ("unfreeze:", "tinybert", "xtremedistil", "bilstm", "yaml", "tfrecord"):
        assert word not in source, word
    known = set(imports(TREES[PACKAGE / "trainer.py"]))
    assert known <= {
        "checkpoints", "interruption", "objective", "optimizers", "recipe", "summaries", "files",
        "stage_parts", "strategies", "updates",
    }  # fmt: skip


def test_nobody_uses_the_keras_of_tensorflow():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "keras":
                value = node.value
                assert not (isinstance(value, ast.Name) and value.id == "tf"), path


@pytest.mark.parametrize("path", BINARIES, ids=lambda path: path.name)
def test_a_binary_is_a_page_with_a_real_command(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "__init__.py":
        return
    assert ast.get_docstring(ast.parse(text))
    if path.stem.endswith("_flags"):
        return
    assert f"python bin/{path.name}" in text or f"python bin/{path.stem}" in text
    assert len(text.splitlines()) < 100
    assert "command_line.run(main)" in text


# What reads and writes text starts without TensorFlow: tests/with_tensorflow_test.py.
OF_TEXT = ("prepare_wikipedia.py", "create_pretraining_data.py")


@pytest.mark.parametrize("path", BINARIES, ids=lambda path: path.name)
def test_a_binary_imports_first_what_keeps_tensorflow_from_greeting(path):
    if path.name not in (*OF_TEXT, "__init__.py") and not path.stem.endswith("_flags"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert next(imports(tree)) == "with_tensorflow"
