"""Schemes of tags, and files of one token a line, against hand-made cases."""

import numpy as np
import pytest

from xdistil_tf.data import tags
from xdistil_tf.data.layouts import Columns
from xdistil_tf.data.readers import read_task, read_transfer
from xdistil_tf.metrics import spans

EXPECTED = ("B-PER", "I-PER", "O", "B-LOC", "B-LOC", "B-ORG", "I-ORG", "I-ORG")
WRITTEN = {
    "iob1": ("I-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-ORG", "I-ORG", "I-ORG"),
    "iob2": EXPECTED,
    "iobes": ("B-PER", "E-PER", "O", "S-LOC", "S-LOC", "B-ORG", "I-ORG", "E-ORG"),
    "bilou": ("B-PER", "L-PER", "O", "U-LOC", "U-LOC", "B-ORG", "I-ORG", "L-ORG"),
}
WORDS = tuple("Ada Lovelace saw Rome Oslo Bank of Rome".split())


@pytest.mark.parametrize("scheme", WRITTEN)
@pytest.mark.parametrize("separator", ["\t", " "])
def test_any_scheme_is_read_as_iob2(write, scheme, separator):
    lines = [separator.join(pair) for pair in zip(WORDS, WRITTEN[scheme], strict=True)]
    data = read_task(write({"train.conll": "\n".join(lines) + "\n\n"}), "ner")
    (one,) = data.splits["train"]
    assert (one.text, one.label) == (WORDS, EXPECTED)
    assert data.labels == ("B-LOC", "B-ORG", "B-PER", "I-ORG", "I-PER", "O")
    assert data.metric == "span_f1"


def test_a_span_that_ended_is_not_gone_on_with():
    assert tags.to_iob2(["B-PER", "E-PER", "I-PER"], "iobes") == (("B-PER", "I-PER", "B-PER"), 1)
    assert tags.to_iob2(["I-PER", "I-LOC"], "iob") == (("B-PER", "B-LOC"), 2)


def test_only_spans_without_a_beginning_are_counted():
    assert tags.to_iob2(["S-PER", "U-LOC", "B-LOC", "E-LOC"], "iobes")[1] == 0
    # Not closed, and yet a new one begins.
    assert tags.to_iob2(["B-PER", "S-PER"], "iobes") == (("B-PER", "B-PER"), 0)


def test_listed_labels_may_be_of_any_scheme(write):
    files = {
        "labels.tsv": "O\nI-PER\nS-PER\nE-PER\nB-PER\n",
        "train.tsv": "Ada sleeps\tS-PER O\nAda Lovelace\tB-PER E-PER\n",
    }
    data = read_task(write(files), "ner")
    assert data.labels == ("O", "I-PER", "B-PER")
    assert [one.label for one in data.splits["train"]] == [("B-PER", "O"), ("B-PER", "I-PER")]


def test_a_trained_models_labels_read_a_file_of_another_scheme(write):
    folder = write({"dev.tsv": "Ada sleeps\tS-PER O\n"})
    labels = ("B-PER", "I-PER", "O")
    (one,) = read_task(folder, "ner", labels=labels, splits=("dev",)).splits["dev"]
    assert one.label == ("B-PER", "O")


def test_languages_before_tags_do_not_hide_the_scheme(write):
    data = read_task(write({"train.tsv": "Ada Lovelace\ten:B-PER en:E-PER\n"}), "ner")
    assert data.splits["train"][0].label == ("B-PER", "I-PER")
    assert data.splits["train"][0].language == "en"


def test_tags_that_mark_no_spans_stay(write):
    data = read_task(write({"train.tsv": "they sleep\tPRON VERB\n"}), "ner")
    assert data.splits["train"][0].label == ("PRON", "VERB")
    assert data.metric == "word_accuracy"


def test_single_words_alone_have_a_scheme(write):
    data = read_task(write({"train.tsv": "Ada sleeps\tS-PER O\n"}), "ner")
    assert data.splits["train"][0].label == ("B-PER", "O") and data.metric == "span_f1"


def test_an_odd_tag_among_spans_is_a_fault(write):
    folder = write({"train.tsv": "Ada in Rome 7\tB-PER O B-LOC 0\n"})
    with pytest.raises(ValueError, match=r"train.tsv: most tags mark spans .*, and '0' not"):
        read_task(folder, "ner")
    columns = Columns(tag_scheme="none")
    assert read_task(folder, "ner", columns).metric == "word_accuracy"


def test_a_file_of_one_sentence_needs_no_empty_line(write):
    folder = write({
        "train.tsv": "Ada\tB-PER\nKent\tI-PER\n\nsleeps\tO\n\n",
        "dev.tsv": "Ada\tB-PER\nLovelace\tI-PER\n",
        "test.txt": "",
    })  # fmt: skip
    (one,) = read_task(folder, "ner").splits["dev"]
    assert one.text == ("Ada", "Lovelace")


def test_white_space_of_other_kinds_belongs_to_a_token(write):
    tabs = "10\u00a0000\tO\n\u3000\tO\nRome\tB-LOC\n\n"
    for name, content in (("train.tsv", tabs), ("dev.conll", tabs.replace("\t", "  "))):
        folder = write({name: content})
        (one,) = read_task(folder, "ner").splits[name.partition(".")[0]]
        assert one.text == ("10\u00a0000", "\u3000", "Rome") and one.label[-1] == "B-LOC"


def test_a_test_file_of_words_alone_may_lack_the_named_column(write):
    folder = write({
        "train.conll": "Ada NNP B-PER\n\nRome NNP B-LOC\n\n", "test.conll": "Ada\nsleeps\n\n",
    })  # fmt: skip
    for column in ("2", "-1"):
        (one,) = read_task(folder, "ner", Columns(label=column)).splits["test"]
        assert one.text == ("Ada", "sleeps") and one.label is None


def test_languages_before_words_are_taken_off(write):
    content = "sw:Ada\tB-PER\nsw::\tO\nsw:Roma\tB-LOC\n\nen:Ada\tB-PER\nlives\tO\n\n"
    one, other = read_task(write({"train.tsv": content}), "ner").splits["train"]
    assert (one.text, one.language) == (("Ada", ":", "Roma"), "sw")
    assert (other.text, other.language) == (("en:Ada", "lives"), "default")


def test_a_transfer_file_keeps_the_languages_that_were_named(write):
    rows = [f'{{"words": ["Ada"], "language": "{one}"}}' for one in ("en", "sw", "default")]
    folder = write({"t.jsonl": "\n".join(rows) + "\n"})
    kept, _ = read_transfer(str(folder / "t.jsonl"), task="ner", languages=("sw",))
    assert [one.language for one in kept] == ["sw", "default"]


@pytest.mark.parametrize(
    ("scheme", "given", "message"),
    [
        ("iob2", "O I-PER", "train.tsv line 2: expected an entity to begin with B-"),
        ("iob2", "I-PER O", "received 'I-PER' as the first tag"),
        ("iob", "O S-PER", "begins with B-, I-, received 'S-PER'"),
        ("iobes", "O X-PER", "received 'X-PER'"),
        ("iob", "O PER", "received 'PER'"),
        ("iobs", "O O", "Unknown tag_scheme"),
    ],
)
def test_what_a_scheme_does_not_have_is_refused(write, scheme, given, message):
    folder = write({"train.tsv": f"a b\tB-PER O\nc d\t{given}\n"})
    with pytest.raises(ValueError, match=message):
        read_task(folder, "ner", Columns(tag_scheme=scheme))


def test_columns_are_chosen_by_number_and_documents_are_no_words(write):
    text = "-DOCSTART- -X- -X- O\n\n1 Ada NNP B-PER\n2 sleeps VBZ O\n\n1 Rome NNP B-LOC\n"
    folder = write({"train.conll": text})
    data = read_task(folder, "ner", Columns(text="1", label="-1"))
    assert [one.text for one in data.splits["train"]] == [("Ada", "sleeps"), ("Rome",)]
    data = read_task(folder, "ner", Columns(text="1", label="2"))
    assert data.splits["train"][0].label == ("NNP", "VBZ")
    with pytest.raises(ValueError, match="number of a column.*--text_column.*'word'"):
        read_task(folder, "ner", Columns(text="word"))


def test_comments_of_files_with_tabs_are_no_words(write):
    text = "# text = # 1\n#\tO\n1\tB-NUM\n\n"
    data = read_task(write({"train.tsv": text}), "ner")
    assert data.splits["train"][0].text == ("#", "1")


def test_lines_of_unequal_width_are_refused_with_their_number(write):
    folder = write({"train.conll": "Ada NNP B-PER\nsleeps O\n\nx y O\n"})
    with pytest.raises(ValueError, match=r"expected 3 columns as before.*\(line 2\)"):
        read_task(folder, "ner")


def test_texts_without_tags_are_read_from_columns_or_lines(write):
    folder = write({"train.conll": "Ada B-PER\n\n", "test.conll": "Rome\nsleeps\n\nx\n"})
    test = read_task(folder, "ner").splits["test"]
    assert [(one.text, one.label) for one in test] == [(("Rome", "sleeps"), None), (("x",), None)]
    write({"more.txt": "one sentence here\n\nanother one\n"}, folder)
    texts, _ = read_transfer(str(folder / "more.txt"), task="ner")
    assert [one.text for one in texts] == [("one", "sentence", "here"), ("another", "one")]
    write({"words.txt": "Rome\nsleeps\n\nx\n"}, folder)
    texts, _ = read_transfer(str(folder / "words.txt"), task="ner")
    assert [one.text for one in texts] == [("Rome", "sleeps"), ("x",)]


def test_a_language_that_was_named_must_be_there_to_be_reported(write):
    files = {"train-en.tsv": "a\tO\n\n", "train-sw.tsv": "b\tO\n\n", "dev-en.tsv": "c\tO\n\n"}
    folder = write(files)
    assert read_task(folder, "ner").languages == ("en", "sw")
    with pytest.raises(ValueError, match="dev split of .* has no examples of 'sw', only of 'en'"):
        read_task(folder, "ner", languages=["en", "sw"])
    with pytest.raises(ValueError, match="train split of .* has no examples of 'fr'"):
        read_task(folder, "ner", languages=["en", "fr"])


def test_entities_are_the_strict_spans():
    rng = np.random.default_rng(0)
    for length in range(12):
        drawn = rng.choice(["O", "B-LOC", "I-LOC", "B-PER", "I-PER"], length).tolist()
        sentence, _ = tags.to_iob2(drawn, "iob")
        expected = sorted(spans.strict_spans([list(sentence)])[0])
        assert tags.entities(sentence) == [(one.first, one.last, one.type) for one in expected]
