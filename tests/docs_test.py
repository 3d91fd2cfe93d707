"""The documents say what the code does: flags, fields, commands of other tools, links, tables."""

import importlib
import importlib.util
import inspect
import json
import pathlib
import re
import shlex
import subprocess

import pytest

from xdistil_tf import api, command_line, interruption, recipe, recipe_files, recipes, study
from xdistil_tf.data import glue

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    path
    for path in (
        *sorted(DOCS.glob("*.md")),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    )
    if path.is_file()
]
BINARIES = sorted(
    path.stem for path in (ROOT / "bin").glob("[a-z]*.py") if not path.stem.endswith("_flags")
)
CODE = re.compile(r"`([^`]+)`")
FLAG = re.compile(r"--([a-z][a-z0-9_]*)")


def section(page, heading):
    """The lines of a page from a heading to the next one of the same level."""
    text = (DOCS / page).read_text(encoding="utf-8")
    level = heading.split()[0]
    start = text.index(f"\n{heading}") + 1
    end = text.find(f"\n{level} ", start)
    return text[start : end if end > 0 else None]


def rows(text):
    """The cells of each table row, without headers."""
    found = []
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                found.pop()
            else:
                found.append(cells)
    return found


class Recorder:
    """Takes the place of `absl.flags` in a binary: keeps the names of flags, defines none."""

    def __init__(self):
        self.names = set()

    def __getattr__(self, function):
        def called(name, *arguments, **options):
            if function.startswith("DEFINE_"):
                self.names.add(name)

        return called


@pytest.fixture(scope="module")
def flags_of():
    """Verb -> the flags that its binary defines."""
    groups = [
        importlib.import_module(f"xdistil_tf.bin.{name}")
        for name in ("shared_flags", "runner_flags", "distill_flags", "augment_flags")
    ]
    found = {}
    for verb in BINARIES:
        module = importlib.import_module(f"xdistil_tf.bin.{verb}")
        recorder = Recorder()
        with pytest.MonkeyPatch.context() as patch:
            for one in (*groups, module):
                patch.setattr(one, "flags", recorder)
            module.define_flags()
        found[verb] = recorder.names
    return found


# Interfaces.


def documented_flags():
    """Row of the table of binaries -> flags, groups resolved."""
    table = {
        cells[0].strip("`"): cells[1] for cells in rows(section("interfaces.md", "## 1. Binaries"))
    }

    def resolve(name):
        # Values and explanations stand in parentheses or after the flag's name in backticks.
        fragments = CODE.findall(re.sub(r"\([^()]*\)", "", table[name]))
        names = {flag for fragment in fragments for flag in FLAG.findall(fragment)}
        for group in ("strategy flags", "run flags"):
            if name != group and re.search(rf"\b{group}\b", table[name]):
                names |= resolve(group)
        if re.search(r"\bthose\b", table[name]):
            names |= resolve("all that read a task")
        return names

    return {name: resolve(name) for name in table}


def test_exit_codes_in_the_documents_are_those_of_the_command_line():
    codes = {0, command_line.BAD_INPUT, command_line.BAD_FLAGS, command_line.DISK_FULL}
    codes |= {command_line.NOT_A_NUMBER, interruption.EXIT_CODE}
    line = section("interfaces.md", "## 1. Binaries").split("Exit codes:")[1].split("\n\n")[0]
    assert [int(code) for code in re.findall(r"\*\*(\d+)\*\*", line)] == sorted(codes)
    table = rows(section("resume.md", "## Exit codes"))
    assert [int(cells[0]) for cells in table] == sorted(codes)


def test_every_binary_has_a_row_and_every_row_a_binary():
    groups = {"all that read a task", "strategy flags", "run flags"}
    assert set(documented_flags()) == set(BINARIES) | groups


@pytest.mark.parametrize("verb", BINARIES)
def test_flags_of_a_binary_are_the_documented_ones(verb, flags_of):
    assert flags_of[verb] == documented_flags()[verb]


FIELDS = {
    "recipe": {recipe.Recipe},
    "model, `kind: bilstm`": {recipe.BiLSTMModel, recipe.Words, recipe.Embedding},
    "model, `kind: encoder`": {recipe.EncoderModel, recipe.WidthProjection},
    "teacher": {recipe.Teacher},
    "stage": {recipe.Stage},
    "term": {recipe.Term},
    "optimizer": {recipe.Optimizer},
    "evaluate": {recipe.Evaluate},
}


def documented_fields(cell):
    """The names that begin each item of a cell: `a b` or `a: {b, c}`."""
    items = (CODE.search(item) for item in cell.split(" · "))
    return {name for item in items for name in re.findall(r"[a-z]\w*", item[1])}


def test_every_part_of_a_recipe_has_a_row():
    table = rows(section("interfaces.md", "## 2. Recipe"))
    assert [cells[0] for cells in table] == list(FIELDS)


@pytest.mark.parametrize("part", FIELDS)
def test_fields_of_a_recipe_are_the_documented_ones(part):
    table = dict(rows(section("interfaces.md", "## 2. Recipe")))
    expected = {name for kind in FIELDS[part] for name in kind.model_fields}
    assert documented_fields(table[part]) == expected


def test_fields_of_a_study_are_the_documented_ones():
    text = next(
        line
        for line in section("interfaces.md", "## 2. Recipe").splitlines()
        if line.startswith("A **study**")
    )
    expected = {*study.Study.model_fields, *study.StudyTask.model_fields}
    assert {name for name in CODE.findall(text) if name.isidentifier()} == expected


def test_names_of_the_python_interface_are_the_documented_ones():
    table = rows(section("interfaces.md", "## 6. Python"))
    assert {name for cells in table for name in CODE.findall(cells[0])} == set(api.__all__)


def test_losses_in_the_documents_are_those_of_the_registry():
    from xdistil_tf import losses

    table = rows(section("recipes.md", "## 5. Terms"))
    named = {cells[0].strip("`") for cells in table if cells[0].strip("`") in losses.LOSSES}
    assert named == set(losses.LOSSES)
    line = next(
        line
        for line in section("interfaces.md", "## 2. Recipe").splitlines()
        if line.startswith("Losses:")
    )
    assert set(CODE.findall(line)) == {*losses.LOSSES, "task", "soft_task"}


@pytest.mark.parametrize("page", [path for path in PAGES], ids=lambda path: path.name)
def test_recipes_shown_in_a_page_are_valid(page):
    import yaml

    for number, block in enumerate(
        re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    ):
        data = yaml.safe_load(block)
        where = f"{page.name}, YAML block {number}"
        if "variants" in data:
            complete = {"name": "x", "recipe": "r", "teacher": "t", "seeds": [1]}
            complete["tasks"] = [{"task": "rte", "task_dir": "d"}]
            recipe_files.parse_config(study.Study, complete | data, where)
            continue
        if "by_task" in data:
            assert recipe_files.fields_by_task(data, where).keys() <= glue.GLUE.keys()
            continue
        if not {"model", "stages"} <= set(data):
            complete = yaml.safe_load(recipes.find("configs/bert/finetune.yaml").read_text())
            data = complete | data
        recipe_files.parse_config(recipe.Recipe, data, where)


# Migration.

# What the commands of the other systems are called with, section by section of the page.
THEIRS = {
    "## 1.": """data_dir bert_config_file task_name vocab_file output_dir model_dir pred_file
        bert_prediction_file word_embedding_file shared_model_file init_checkpoint do_lower_case
        max_seq_length do_train do_eval do_distil task s1_loss s1_opt s2_opt bilstm_hidden_size
        distil_batch_size dropout_rate teacher_layer distil_teacher_batch_size alpha
        train_batch_size eval_batch_size predict_batch_size learning_rate num_train_epochs
        warmup_proportion save_checkpoints_steps iterations_per_loop use_tpu tpu_name tpu_zone
        gcp_project master num_tpu_cores crf""",
    "## 2.": """word_emb_file pred_file do_distil s1_loss s_opt distil_batch_size path task
        model_dir do_lower_case eval_batch_size predict_batch_size""",
    "## 3.": """--task --model_dir --seq_len --transfer_file --do_NER --word_emb_dim
        --word_emb_file --bilstm_hidden_size --dropout_rate --dense_act_func --pt_teacher
        --pt_teacher_checkpoint --teacher_layer --distil_batch_size --ft_batch_size --ft_epochs
        --distil_epochs --distil_chunk_size PYTHONHASHSEED run_xtreme_distil.py""",
    "## 4.": """--task --model_dir --seq_len --transfer_file --teacher_model_dir --do_NER
        --do_pairwise --hidden_size --num_attention_heads --num_hidden_layers
        --pt_student_checkpoint --distil_attention --distil_multi_hidden_states
        --compress_word_embedding --freeze_word_embedding --pt_teacher --pt_teacher_checkpoint
        --opt_policy --student_distil_batch_size --student_ft_batch_size --teacher_batch_size
        --ft_epochs --distil_epochs --distil_chunk_size --patience run_xtreme_distil.py""",
    "## 5.": """run_xtreme_distil_ft.py run_xtreme_distil_predict.py
        run_xtreme_distil_predict_onnx.py run_model_ft.py
        ft--batch_size ft--model_dir ft--ft_epochs ft--patience ft--opt_policy
        predict--pred_file predict--batch_size predict--model_dir predict--do_eval
        predict--do_predict predict--opt_policy
        onnx--pred_file onnx--model_dir onnx--do_eval onnx--do_predict
        model_ft--task model_ft--model_dir model_ft--seq_len model_ft--multilingual
        model_ft--do_NER model_ft--do_pairwise model_ft--pt_model model_ft--pt_model_checkpoint
        model_ft--opt_policy model_ft--batch_size model_ft--ft_epochs model_ft--patience""",
    "## 6.": """create_pretraining_data.py run_pretraining.py input_file output_file vocab_file
        do_lower_case do_whole_word_mask max_seq_length max_predictions_per_seq random_seed
        dupe_factor masked_lm_prob short_seq_prob bert_config_file output_dir init_checkpoint
        do_train do_eval train_batch_size eval_batch_size learning_rate num_train_steps
        num_warmup_steps save_checkpoints_steps iterations_per_loop max_eval_steps use_tpu
        tpu_name tpu_zone gcp_project master num_tpu_cores""",
    "## 7.": """WikiExtractor.py extract_jsons.py split_text.py
        multifile_create_pretraining_data.py create_pretraining_data.py
        extract_teacher_labels_truncated.py extract_teacher_labels.py produce_teacher_labels.py
        network_distillation_single_machine.py network_distillation_single_machine_truncated.py
        network_distillation_distributed.py network_distillation_distributed_truncated.py
        multinode_train.sh extract_jsons--folder extract_jsons--write_file
        split_text--read_file split_text--split_number split_text--folder split_text--name_base
        data--input_dir data--output_dir data--output_base_name data--vocab_file
        data--do_lower_case data--max_seq_length data--max_predictions_per_seq data--random_seed
        data--dupe_factor data--masked_lm_prob data--short_seq_prob labels--bert_config_file
        labels--init_checkpoint labels--input_file labels--output_file labels--truncation_factor
        labels--max_seq_length labels--max_predictions_per_seq labels--batch_size
        distil--bert_config_file distil--input_file distil--output_dir distil--init_checkpoint
        distil--truncation_factor distil--max_seq_length distil--max_predictions_per_seq
        distil--do_train distil--do_eval distil--train_batch_size distil--eval_batch_size
        distil--learning_rate distil--num_train_steps distil--num_warmup_steps
        distil--save_checkpoints_steps distil--iterations_per_loop distil--max_eval_steps
        distil--use_tpu distil--tpu_name distil--tpu_zone distil--gcp_project distil--master
        distil--num_tpu_cores""",
    "## 8.": """pregenerate_training_data.py general_distill.py data_augmentation.py task_distill.py
        pregen--train_corpus pregen--output_dir pregen--bert_model pregen--do_lower_case
        pregen--do_whole_word_mask pregen--reduce_memory pregen--num_workers
        pregen--epochs_to_generate pregen--max_seq_len pregen--short_seq_prob
        pregen--masked_lm_prob pregen--max_predictions_per_seq pregen--one_seq pregen--data_url
        general--pregenerated_data general--teacher_model general--student_model
        general--output_dir general--max_seq_length general--reduce_memory general--do_eval
        general--do_lower_case general--train_batch_size general--eval_batch_size
        general--learning_rate general--weight_decay general--wd general--num_train_epochs
        general--warmup_proportion general--no_cuda general--local_rank general--seed
        general--gradient_accumulation_steps general--fp16 general--continue_train
        general--eval_step general--data_url aug--pretrained_bert_model aug--glove_embs
        aug--glue_dir aug--task_name aug--N aug--M aug--p task--data_dir task--teacher_model
        task--student_model task--task_name task--output_dir task--cache_dir
        task--max_seq_length task--do_eval task--do_lower_case task--train_batch_size
        task--eval_batch_size task--learning_rate task--weight_decay task--wd
        task--num_train_epochs task--warmup_proportion task--no_cuda task--seed
        task--gradient_accumulation_steps task--aug_train task--eval_step task--pred_distill
        task--data_url task--temperature""",
    "## 9.": """distill.run.augment_data distill.run.augment_paired_data lite--mask_prob
        lite--random_prob lite--window_prob lite--window_lengths lite--n_iter lite--dataset_file
        lite--seed lite--tokenizer pairs--task pairs--single_only_prob pairs--paired_prob""",
}
MIGRATION = [
    (heading, cells) for heading in THEIRS for cells in rows(section("migration.md", heading))
]


@pytest.mark.parametrize("heading", THEIRS)
def test_every_flag_of_the_other_systems_has_a_row(heading):
    named = set()
    for where, cells in MIGRATION:
        if where == heading:
            command = cells[0].split("`")[0].strip()
            named |= {command + name for name in CODE.findall(cells[0])}
    assert set(THEIRS[heading].split()) - named == set()


@pytest.mark.parametrize(
    "cells", [cells for _, cells in MIGRATION], ids=[f"{h[3]}-{c[0]}" for h, c in MIGRATION]
)
def test_a_migration_row_names_what_exists(cells, flags_of):
    assert len(cells) == 3
    checked = sum(check_fragment(fragment, flags_of) for fragment in CODE.findall(cells[2]))
    reason = re.match(r"not (needed|available): \w", cells[2])
    assert checked or reason, f"{cells[0]} is mapped to nothing and says not why"


def check_fragment(fragment, flags_of):
    """Whether a literal of the third column was one that can be checked; it is checked then."""
    if fragment.startswith("bin/"):
        check_command(shlex.split(fragment), flags_of)
    elif fragment.startswith(("--set ", "--set_teacher ")):
        flag, override = shlex.split(fragment)
        name = "bert/finetune" if flag == "--set_teacher" else "xtremedistil/text"
        recipe_files.load_recipe(recipes.find(f"configs/{name}.yaml"), [override])
    elif fragment.startswith("xdistil_tf."):
        check_function(fragment)
    else:
        assert not fragment.startswith("--"), f"{fragment} is not checked: write bin/<verb>.py"
        return False
    return True


def check_command(words, flags_of):
    verb = pathlib.Path(words[0]).stem
    assert (ROOT / words[0]).is_file() and len(words) > 1
    values = {}
    for word in words[1:]:
        flag, _, value = word.partition("=")
        assert flag.removeprefix("--") in flags_of[verb], f"{verb} has no flag {flag}"
        values.setdefault(flag, []).append(value)
    named = [name for name in values.get("--recipe", []) if name != "FILE"]
    path = recipes.find(named[0] if named else "configs/bert/finetune.yaml")
    recipe_files.load_recipe(path, values.get("--set", []))


def check_function(fragment):
    module, function, _, names = re.fullmatch(r"([\w.]+):(\w+)(\((.*)\))?", fragment).groups()
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    for name in filter(None, (names or "").replace(" ", "").split(",")):
        assert name in parameters, f"{function} has no argument {name}"


# Pages.


def anchors(path):
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_relative_links_resolve(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name}: no {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name}: no heading {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_of_the_project_that_a_page_names_exist(page):
    folders = "bin|configs|docs|tools|tests|xdistil_tf"
    text = page.read_text(encoding="utf-8")
    for path in re.findall(rf"(?<![\w/.])(?:{folders})/[\w/]+\.(?:py|yaml|md)\b", text):
        assert (ROOT / path).is_file(), f"{page.name}: no {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_shown_in_a_page_use_flags_that_exist(page, flags_of):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for verb, rest in re.findall(r"^\s*(?:python )?bin/(\w+)\.py (--.*)$", text, re.M):
        for flag in FLAG.findall(rest):
            assert flag in flags_of[verb], f"{page.name}: {verb} has no flag --{flag}"


def tracked_texts():
    """Every text file under version control, or of a copy without it.

    Not what is new in the checkout: whoever follows the README has results there.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    for path in paths:
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                yield path, content.decode("utf-8")


def test_no_registry_host_and_no_path_of_a_machine_is_written_anywhere():
    # Put together here, so that this file does not contain what it looks for.
    hosts = "|".join(("py" + "pi", "python" + "hosted", "index" + "-url"))
    folders = "|".join(("home", "root", "tmp", "work", "Users", "mnt"))
    pattern = re.compile(rf"\b(?:{hosts})\b|(?<![\w.$}}*)\]])/(?:{folders})/\w")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, text in tracked_texts()
        for match in pattern.finditer(text)
    ]
    assert found == []


# Tables.


@pytest.fixture(scope="module")
def render_tables():
    spec = importlib.util.spec_from_file_location("render_tables", ROOT / "tools/render_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_equal_the_files_they_come_from(render_tables):
    assert render_tables.main(["--check"]) == 0


@pytest.fixture
def checkout(tmp_path):
    """A README with one table, and one in docs whose file is not there."""
    (tmp_path / "docs").mkdir()
    marker = "before\n<!-- table: results/{}.json -->\nold\n<!-- end -->\nafter\n"
    (tmp_path / "README.md").write_text(marker.format("speed"), encoding="utf-8")
    (tmp_path / "docs/page.md").write_text(marker.format("later"), encoding="utf-8")
    (tmp_path / "results").mkdir()
    row = {"name": "a|b", "ours": 2000.5, "theirs": 1000, "unit": "s", "ratio": 2.0005, "aim": 1.6}
    content = {"comparisons": [row, row | {"aim": None}]}
    (tmp_path / "results/speed.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_what_explains_the_study_of_all_labels_is_what_was_measured():
    """The shares of the README, from the files of the commands that measured them."""
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    shares = json.loads((ROOT / "evidence/sst2_heldout_overlap.json").read_text())
    study_of_all = json.loads((ROOT / "evidence/xtremedistil_sst2_full.json").read_text())
    runs = study_of_all["runs"]

    def kept(figures):
        whole = sum(one["teacher"]["metrics"]["accuracy"] for one in runs)
        return f"{100 * sum(figures) / whole:.1f} %"

    after_logits = [
        next(s["reported"] for s in one["stages"] if s["name"] == "logits.4_embedding")
        for one in runs
    ]
    final = [one["student"]["metrics"]["accuracy"] for one in runs]
    for said in (
        f"keeps {kept(final)} of its teacher",
        f"after the logit stages it keeps {kept(after_logits)}",
        f"of SST-2 {100 * shares['select']['inside_train']:.1f} % stand inside a longer train text",
        f"of dev's {100 * shares['report']['inside_train']:.1f} %",
    ):
        assert said in text, said


def test_a_benchmark_becomes_a_table(render_tables, checkout):
    assert render_tables.main([f"--root={checkout}", "--check"]) == 1
    assert render_tables.main([f"--root={checkout}"]) == 0
    assert render_tables.main([f"--root={checkout}", "--check"]) == 0
    assert (checkout / "README.md").read_text(encoding="utf-8") == (
        "before\n<!-- table: results/speed.json -->\n"
        "| compared | ours | theirs | unit | ratio | aim |\n"
        "| --- | ---: | ---: | --- | ---: | ---: |\n"
        "| a\\|b | 2000 | 1,000 | s | 2 × | ≥ 1.6 × |\n"
        "| a\\|b | 2000 | 1,000 | s | 2 × |  |\n"
        "<!-- end -->\nafter\n"
    )
    page = (checkout / "docs/page.md").read_text(encoding="utf-8")
    assert "Not measured yet: there is no `results/later.json`." in page


def test_a_study_becomes_a_table(render_tables, checkout):
    table = {"columns": ["model", "seed 1"], "rows": [["teacher", "0.8940"], ["student", "–"]]}
    (checkout / "results/speed.json").write_text(json.dumps({"table": table, "comparisons": []}))
    render_tables.main([f"--root={checkout}"])
    expected = "| model | seed 1 |\n| --- | ---: |\n| teacher | 0.8940 |\n| student | – |\n"
    assert expected in (checkout / "README.md").read_text(encoding="utf-8")


def test_the_differences_of_a_study_stand_below_its_table(render_tables, checkout):
    table = {"columns": ["model", "seed 1"], "rows": [["student", "0.8000"]]}
    row = {
        "task": "sst-2", "difference": "student - labels_only", "per_seed": [0.02, -0.01],
        "mean": 0.005, "standard_error": 0.015, "two_standard_errors": False,
        "reported_split_standard_error": 0.0131, "retained": 0.975,
    }  # fmt: skip
    single = row | {"per_seed": [0.02], "standard_error": None}
    content = {"table": table, "comparisons": [row, single]}
    (checkout / "results/speed.json").write_text(json.dumps(content))
    assert render_tables.main([f"--root={checkout}"]) == 0
    text = (checkout / "README.md").read_text(encoding="utf-8")
    name = "| sst-2, student - labels_only "
    assert "\n\n| difference " in text
    assert f"{name}| +0.0200 -0.0100 | +0.0050 | 0.0300 | no | 0.0131 | 97.5% |\n" in text
    assert f"{name}| +0.0200 | +0.0050 |  | no | 0.0131 | 97.5% |\n" in text


def test_the_variants_of_a_study_are_rows_of_a_short_table(render_tables, checkout):
    def run(variant, seed, accuracy):
        model = {"parameters": 7, "seconds": 60.4}
        return {
            "variant": variant, "seed": seed, "metric": "accuracy",
            "teacher": model | {"metrics": {"accuracy": 0.9}},
            "student": model | {"metrics": {"accuracy": accuracy, "f1": 0.1}},
        }  # fmt: skip

    runs = [run("full", 1, 0.8), run("full", 2, 0.7), run("top", 1, 0.6)]
    apart = {"variant": "top", "difference": "student - full", "mean": -0.2, "standard_error": 0.01}
    other = apart | {"difference": "student - teacher", "mean": -0.3}
    content = {"runs": runs, "comparisons": [other, apart], "table": {"columns": [], "rows": []}}
    (checkout / "results/speed.json").write_text(json.dumps(content))
    readme = checkout / "README.md"
    readme.write_text(readme.read_text().replace("speed.json", "speed.json variants"))
    assert render_tables.main([f"--root={checkout}"]) == 0
    assert (
        "| student | seed 1 | seed 2 | mean | less full | parameters | training, s |\n"
        "| --- | ---: | ---: | ---: | --- | ---: | ---: |\n"
        "| its teacher | 0.9000 | 0.9000 | 0.9000 |  | 7 | 60 |\n"
        "| full | 0.8000 | 0.7000 | 0.7500 |  | 7 | 60 |\n"
        "| top | 0.6000 | – | 0.6000 | -0.2000 ± 0.0200 | 7 | 60 |\n"
    ) in readme.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"rows": []}', "neither 'table' nor 'comparisons'"),
        ('{"table": {"columns": ["a"], "rows": [[1, 2]]}}', "expected rows of 1 cells"),
        ("{", "README.md"),
    ],
)
def test_a_file_that_is_no_table_is_named(render_tables, checkout, capsys, content, message):
    (checkout / "results/speed.json").write_text(content)
    assert render_tables.main([f"--root={checkout}"]) == 1
    assert message in capsys.readouterr().err


def test_a_marker_without_end_is_an_error(render_tables, checkout, capsys):
    (checkout / "README.md").write_text("<!-- table: results/speed.json -->\n")
    assert render_tables.main([f"--root={checkout}"]) == 1
    assert "<!-- end -->" in capsys.readouterr().err
