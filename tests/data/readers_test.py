import pytest

from xdistil_tf.data.layouts import Columns
from xdistil_tf.data.readers import read_task, read_transfer

GLUE_FILES = {
    "sst-2": {
        "train.tsv": 'sentence\tlabel\ngood " film \t1\nbad film \t0\na film \t1\n',
        "dev.tsv": "sentence\tlabel\nx\t0\ny\t1\nz\t1\n",
        "test.tsv": "index\tsentence\n0\tx1\n1\ty1\n2\tz1\n",
    },
    "cola": {
        "train.tsv": "gj04\t1\t\tgood film\ngj04\t0\t*\tfilm bad\ngj04\t1\t\ta\n",
        "dev.tsv": "gj04\t1\t\tx\ngj04\t0\t*\ty\ngj04\t1\t\tz\n",
        "test.tsv": "index\tsentence\n0\tx1\n1\ty1\n2\tz1\n",
    },
    "mrpc": {
        "train.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tgood\tfilm\n"
        "0\t7\t8\ta\tb\n1\t7\t8\tc\td\n",
        "dev.tsv": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tx\ty\n",
        "test.tsv": "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tx1\ty1\n",
    },
    "qqp": {
        "train.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tgood\tfilm\t1\n"
        "1\t2\t3\ta\tb\t0\n1\t2\t3\tc\td\t1\n",
        "dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tx\ty\t1\n",
        "test.tsv": "id\tquestion1\tquestion2\n0\tx1\ty1\n",
    },
    "sts-b": {
        "train.tsv": "index\tgenre\tsentence1\tsentence2\tscore\n0\tg\tgood\tfilm\t5.000\n"
        "1\tg\ta\tb\t0.25\n2\tg\tc\td\t3\n",
        "dev.tsv": "index\tgenre\tsentence1\tsentence2\tscore\n0\tg\tx\ty\t2.5\n",
        "test.tsv": "index\tgenre\tsentence1\tsentence2\n0\tg\tx1\ty1\n",
    },
    "mnli": {
        "train.tsv": "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\tgood\tfilm\tneutral\tentailment\n1\ta\tb\tneutral\tneutral\n"
        "2\tc\td\tneutral\tcontradiction\n",
        "dev_matched.tsv": "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\tx\ty\tneutral\tneutral\n",
        "dev_mismatched.tsv": "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\tx2\ty2\tneutral\tentailment\n",
        "test_matched.tsv": "index\tsentence1\tsentence2\n0\tx1\ty1\n",
        "test_mismatched.tsv": "index\tsentence1\tsentence2\n0\tx3\ty3\n",
    },
    "qnli": {
        "train.tsv": "index\tquestion\tsentence\tlabel\n0\tgood\tfilm\tentailment\n"
        "1\ta\tb\tnot_entailment\n2\tc\td\tentailment\n",
        "dev.tsv": "index\tquestion\tsentence\tlabel\n0\tx\ty\tentailment\n",
        "test.tsv": "index\tquestion\tsentence\n0\tx1\ty1\n",
    },
    "rte": {
        "train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tgood\tfilm\tentailment\n"
        "1\ta\tb\tnot_entailment\n2\tc\td\tentailment\n",
        "dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tx\ty\tentailment\n",
        "test.tsv": "index\tsentence1\tsentence2\n0\tx1\ty1\n",
    },
    "wnli": {
        "train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tgood\tfilm\t1\n"
        "1\ta\tb\t0\n2\tc\td\t1\n",
        "dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tx\ty\t1\n",
        "test.tsv": "index\tsentence1\tsentence2\n0\tx1\ty1\n",
    },
}
GLUE_EXPECTED = {
    "sst-2": ("1", "accuracy", ("0", "1")),
    "cola": ("1", "matthews", ("0", "1")),
    "mrpc": ("1", "f1_accuracy", ("0", "1")),
    "qqp": ("1", "f1_accuracy", ("0", "1")),
    "sts-b": (5.0, "pearson_spearman", ()),
    "mnli": ("entailment", "accuracy", ("contradiction", "entailment", "neutral")),
    "qnli": ("entailment", "accuracy", ("entailment", "not_entailment")),
    "rte": ("entailment", "accuracy", ("entailment", "not_entailment")),
    "wnli": ("1", "accuracy", ("0", "1")),
}


@pytest.mark.parametrize("task", GLUE_FILES)
def test_reads_glue(write, task):
    data = read_task(write(GLUE_FILES[task]), task)
    first_label, metric, labels = GLUE_EXPECTED[task]
    train = data.splits["train"]
    single = task in ("sst-2", "cola")
    expected = {"sst-2": 'good " film', "cola": "good film"}.get(task, "good")
    assert [one.id for one in train] == ["train:1", "train:2", "train:3"]
    assert (train[0].text, train[0].text_b) == (expected, None if single else "film")
    assert (train[0].label, data.metric, data.labels) == (first_label, metric, labels)
    assert data.pair is not single
    assert data.task_type == ("regression" if task == "sts-b" else "classification")
    test = data.splits["test"][0]
    assert (test.text, test.text_b, test.label) == ("x1", None if single else "y1", None)
    assert data.splits["dev"][0].text == "x"


def test_mnli_keeps_both_dev_sets_apart(write):
    data = read_task(write(GLUE_FILES["mnli"]), "mnli")
    assert list(data.splits) == ["train", "dev", "dev_mismatched", "test", "test_mismatched"]
    assert data.splits["dev"][0].id == "dev_matched:1"
    assert data.splits["dev_mismatched"][0].label == "entailment"


def test_reads_xtremedistil_classification_with_languages(write):
    files = {"train.tsv": "good\ten:1\nbon\tfr:0\nx\t1\n", "test.tsv": "un texte\n"}
    data = read_task(write(files), "classification")
    assert [(one.label, one.language) for one in data.splits["train"]] == [
        ("1", "en"),
        ("0", "fr"),
        ("1", "default"),
    ]
    assert data.labels == ("0", "1")
    assert data.languages == ("default", "en", "fr")
    assert data.splits["test"][0].label is None


def test_reads_headerless_pairs(write):
    files = {"train.tsv": "a\tb\t1\nc\td\t0\n", "test.tsv": "e\tf\n"}
    data = read_task(write(files), "classification")
    assert data.pair
    assert data.splits["train"][1].text_b == "d"
    assert data.splits["test"][0].text_b == "f"


@pytest.mark.parametrize("tags", ["pt:B-PER pt:I-PER pt:O", "pt:B-PER I-PER O"])
def test_reads_tagging_with_language_on_first_or_every_tag(write, tags):
    data = read_task(write({"train.tsv": f"Joao Silva sleeps\t{tags}\n"}), "ner")
    (one,) = data.splits["train"]
    assert one.text == ("Joao", "Silva", "sleeps")
    assert one.label == ("B-PER", "I-PER", "O")
    assert one.language == "pt"
    assert (data.task_type, data.metric, data.labels) == (
        "tagging",
        "span_f1",
        ("B-PER", "I-PER", "O"),
    )


@pytest.mark.parametrize("label", ["NUM:date", "ratio 3:1", "abbr:exp", "http://x"])
def test_a_colon_in_a_label_survives(write, label):
    data = read_task(write({"train.tsv": f"good\t{label}\nbad\tother\n"}), "classification")
    assert data.splits["train"][0].label == label


def test_a_listed_label_is_no_language(write):
    files = {"labels.tsv": "hum:ind\nx\n", "train.tsv": "good\thum:ind\nbad\tfr:x\n"}
    train = read_task(write(files), "classification").splits["train"]
    assert [(one.label, one.language) for one in train] == [("hum:ind", "default"), ("x", "fr")]


def test_labels_that_look_like_languages_are_never_merged(write):
    """`num:date` and `ent:date` are two classes, unless labels.tsv says that they are one."""
    train = "when\tnum:date\nwhich\tent:date\n"
    with pytest.raises(ValueError, match="train.tsv line 1: 'num:date' may be .*a labels.tsv"):
        read_task(write({"train.tsv": train}), "classification")
    listed = {"train.tsv": train, "labels.tsv": "num:date\nent:date\n"}
    data = read_task(write(listed), "classification")
    assert [one.label for one in data.splits["train"]] == ["num:date", "ent:date"]
    languages = {"train.tsv": train.replace("num", "ceb"), "labels.tsv": "date\n"}
    data = read_task(write(languages), "classification")
    assert [one.language for one in data.splits["train"]] == ["ceb", "ent"]
    with pytest.raises(ValueError, match="'det:poss' may be one label"):
        read_task(write({"train.tsv": "my film\tdet:poss obj\n"}, "tags"), "tagging")


@pytest.mark.parametrize("label", ["zh-yue:good", "ceb:1", "sw:good"])
def test_languages_that_cannot_be_labels_need_no_list(write, label):
    (one,) = read_task(write({"train.tsv": f"a\t{label}\n"}), "classification").splits["train"]
    assert [one.language, one.label] == label.split(":")


def test_labels_file_gives_the_order(write):
    files = {"labels.tsv": "yes\nno\n", "train.tsv": "a\tno\nb\tyes\n"}
    assert read_task(write(files), "classification").labels == ("yes", "no")


def test_numeric_labels_are_sorted_by_value(write):
    rows = "".join(f"t{n}\t{n}\n" for n in range(11))
    data = read_task(write({"train.tsv": rows}), "classification")
    assert data.labels == tuple(map(str, range(11)))


def test_reads_conll_by_language(write):
    files = {
        "train-en.tsv": "John\tB-PER\nsleeps\tO\n\nParis\tB-LOC\n",
        "train-sw.tsv": "Paris\tB-LOC\n\n",
        "dev-en.tsv": "John\tB-PER\n\nin\tO\nParis\tB-LOC\n\n",
    }
    data = read_task(write(files), "tagging")
    train = data.splits["train"]
    assert [(one.id, one.language, one.source[1]) for one in train] == [
        ("train-en:1", "en", 1),
        ("train-en:2", "en", 4),
        ("train-sw:1", "sw", 1),
    ]
    assert train[0].text == ("John", "sleeps")
    only = read_task(write(files), "tagging", languages=["sw"])
    assert [one.language for one in only.splits["train"]] == ["sw"]
    with pytest.raises(ValueError, match="dev split of .* no examples of 'sw', only of 'en'"):
        read_task(write(files), "tagging", languages=["sw"], splits=["dev"], labels=["O", "B-LOC"])


def test_reads_csv_and_json_lines_with_named_columns(write):
    files = {
        "train.csv": 'body,stars,lang\n"good, very\ngood",1,en\nbad,0,sw\n',
        "dev.jsonl": '{"body": "x", "stars": 1, "lang": "en"}\n',
        "test.jsonl": '{"body": "y", "lang": "en"}\n',
    }
    columns = Columns(text="body", label="stars", language="lang")
    data = read_task(write(files), "classification", columns=columns)
    assert data.splits["train"][0].text == "good, very\ngood"
    assert data.splits["train"][1].language == "sw"
    assert data.splits["dev"][0].label == "1"
    assert data.splits["test"][0].label is None


def test_gold_that_is_null_or_minus_one_in_test_is_unknown(write):
    files = {
        "train.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n',
        "test.jsonl": '{"text": "c", "label": -1}\n{"text": "d", "label": null}\n',
    }
    test = read_task(write(files), "classification").splits["test"]
    assert [one.label for one in test] == [None, None]
    files = {"train.jsonl": files["train.jsonl"], "dev.jsonl": files["test.jsonl"]}
    with pytest.raises(ValueError, match="dev.jsonl line 1: expected a label of .*'-1'"):
        read_task(write(files), "classification")


def test_reads_tagging_lists_from_json_lines(write):
    row = '{"tokens": ["New York", "sleeps"], "ner_tags": ["B-LOC", "O"]}\n'
    (one,) = read_task(write({"train.jsonl": row}), "ner").splits["train"]
    assert one.text == ("New York", "sleeps")


def test_reads_a_headed_tsv_with_usual_names(write):
    data = read_task(write({"train.tsv": "text\tlabel\ngood\t1\nbad\t0\n"}), "classification")
    assert data.labels == ("0", "1")


BAD = [
    ("classification", "a\t1\nb\t0\textra\n", "line 2: expected 2 tab-separated columns "
     r"\(text, label\), received 3"),
    ("classification", "a\t1\nb\n", "line 2: expected 2 tab-separated columns .*, received 1"),
    ("classification", "a\t1\n  \t0\n", "line 2: expected text, received an empty text"),
    ("classification", "a\t1\nb\t\n", "line 2: expected a label of .*, received ''"),
    ("classification", b"a\t1\ncaf\xe9\t0\n", "line 2: expected UTF-8, received the byte 0xe9 at "
     "position 4"),
    ("regression", "a\t1.5\nb\thigh\n", "line 2: expected a number as label, received 'high'"),
    ("regression", "a\t1.5\nb\tnan\n", "line 2: expected a number as label, received 'nan'"),
    ("ner", "a b\tO O\na b\tO O O\n", "line 2: expected one tag per word, received 2 words, "
     "3 tags"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "content", "message"), BAD)
def test_a_bad_row_is_an_error_that_names_it(write, task, content, message):
    folder = write({"train.tsv": content})
    with pytest.raises(ValueError, match=message) as error:
        read_task(folder, task)
    assert "train.tsv" in str(error.value) and "--max_bad_rows (now 0)" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("task", "content", "message"), BAD)
def test_a_bad_row_can_be_left_out(write, task, content, message):
    data = read_task(write({"train.tsv": content}), task, max_bad_rows=1)
    assert len(data.splits["train"]) == 1
    ((file, line, reason),) = data.bad_rows
    assert file.endswith("train.tsv") and line == 2 and "expected" in reason


def test_one_bad_row_more_than_allowed_is_an_error(write):
    folder = write({"train.tsv": "a\t1\nb\nc\n"})
    with pytest.raises(ValueError, match=r"line 3: .*\(now 1\)"):
        read_task(folder, "classification", max_bad_rows=1)


def test_rows_left_out_keep_their_number(write):
    data = read_task(write({"train.tsv": "a\t1\nb\nc\t0\n"}), "classification",
                     max_bad_rows=1)  # fmt: skip
    assert [one.id for one in data.splits["train"]] == ["train:1", "train:3"]


def test_an_unknown_label_names_those_known(write):
    folder = write({"train.tsv": "a\t1\nb\t0\n", "dev.tsv": "c\t2\n"})
    with pytest.raises(ValueError, match=r"dev.tsv line 1: .*\['0', '1'\], received '2'"):
        read_task(folder, "classification")


def test_a_missing_column_names_those_present(write):
    folder = write({"train.tsv": "phrase\tlabel\na\t1\n"})
    with pytest.raises(ValueError, match=r"'sentence' for the text.*'phrase', 'label'.*--text"):
        read_task(folder, "sst-2")


def test_a_bad_json_line_is_named(write):
    folder = write({"train.jsonl": '{"text": "a", "label": 1}\n{"text": "b"\n'})
    with pytest.raises(ValueError, match="train.jsonl line 2: expected one JSON object a line"):
        read_task(folder, "classification")


def test_missing_files_and_unknown_tasks_are_errors_with_their_cure(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder .*--task_dir"):
        read_task(tmp_path / "no", "sst-2")
    folder = write({"dev.tsv": "a\t1\n"})
    with pytest.raises(FileNotFoundError, match="No train file .*Expected train.tsv"):
        read_task(folder, "sst-2")
    with pytest.raises(ValueError, match="Unknown task. Expected one of .*sst-2"):
        read_task(folder, "sst3")
    with pytest.raises(FileNotFoundError, match="No file matches '.*txt'. Correct --transfer_file"):
        read_transfer(str(tmp_path / "*.txt"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="no texts in .*empty.txt. Expected one text a line"):
        read_transfer(str(tmp_path / "empty.txt"))


def test_a_split_that_stands_twice_is_refused(write):
    folder = write({"train.tsv": "a\t1\n", "train.csv": "text,label\na,1\n"})
    with pytest.raises(ValueError, match="'train' stands twice .*train.tsv, train.csv"):
        read_task(folder, "classification")


def test_one_split_can_be_read_with_known_labels(write):
    folder = write({"dev.tsv": "a\t1\n"})
    data = read_task(folder, "classification", labels=["1", "0"], splits=["dev"])
    assert (data.labels, list(data.splits), data.pair) == (("1", "0"), ["dev"], False)


def test_reads_plain_transfer_text(write):
    folder = write({"x.txt": "one good film\n\nbad, very bad\tignored\n"})
    examples, _ = read_transfer(str(folder / "x.txt"))
    assert [(one.id, one.text, one.label) for one in examples] == [
        ("x:1", "one good film", None),
        ("x:2", "bad, very bad", None),
    ]


def test_reads_our_transfer_file_with_its_source_ids(write):
    text = "id\ttext\ttext_b\tlabel\tsource_id\trules\n1\tgood\tfilm\t1\ttrain:7\tmask\n"
    folder = write({"augmented.tsv": text})
    ((one,), _) = read_transfer(str(folder / "augmented.tsv"), pair=True, task="rte")
    assert (one.text, one.text_b, one.label, one.source_id) == ("good", "film", None, "train:7")


def test_reads_the_text_of_a_task_file_as_transfer(write):
    folder = write({"train.tsv": GLUE_FILES["cola"]["train.tsv"]})
    examples, _ = read_transfer(str(folder / "train.tsv"), task="cola")
    assert examples[0].text == "good film"


def test_reads_words_as_transfer(write):
    folder = write({"x.tsv": "'' Atelocentra , 1884\tO B-LOC O O\n"})
    ((one,), _) = read_transfer(str(folder / "x.tsv"), task="ner")
    assert one.text == ("''", "Atelocentra", ",", "1884")


def test_transfer_files_of_one_name_are_refused(write):
    first, second = write({"x.txt": "a\n"}, "one"), write({"x.txt": "b\n"}, "two")
    with pytest.raises(ValueError, match="Two files of --transfer_file are called 'x'"):
        read_transfer(f"{first}/x.txt,{second}/x.txt")


@pytest.mark.parametrize("content", ["", "sentence\tlabel\n"])
def test_an_empty_dev_file_is_warned_of(write, caplog, content):
    folder = write({"train.tsv": "sentence\tlabel\na\t1\n", "dev.tsv": content})
    data = read_task(folder, "sst-2")
    assert data.splits["dev"] == []
    assert f"dev.tsv of {folder} has no rows: the task is taken to have no dev split" in caplog.text


def test_an_empty_train_file_is_refused(write):
    folder = write({"train.tsv": "sentence\tlabel\n"})
    with pytest.raises(ValueError, match="train.tsv of .* has no rows. Expected labelled texts"):
        read_task(folder, "sst-2")


def test_columns_that_are_swapped_are_told(tmp_path):
    rows = [f"{n % 2}\tthe soup number {n}" for n in range(40)]
    (tmp_path / "train.tsv").write_text("\n".join(rows) + "\n")
    with pytest.raises(ValueError, match="40 different labels in 40 rows.*columns swapped"):
        read_task(tmp_path, "classification")
    (tmp_path / "labels.tsv").write_text("\n".join(sorted(row[2:] for row in rows)) + "\n")
    assert len(read_task(tmp_path, "classification").labels) == 40
