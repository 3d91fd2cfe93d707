import collections
import subprocess
import sys

import numpy as np
import pytest
from sklearn import feature_extraction, linear_model

from xdistil_tf.data import readers, reviews, synthetic


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def examples(path):
    return [tuple(line.split("\t")) for line in lines(path)]


def bag_of_words_accuracy(train, test):
    vectorizer = feature_extraction.text.CountVectorizer(token_pattern=r"\S+")
    model = linear_model.LogisticRegression(max_iter=200)
    model.fit(vectorizer.fit_transform([text for text, _ in train]), [label for _, label in train])
    predicted = model.predict(vectorizer.transform([text for text, _ in test]))
    return float(np.mean(predicted == np.array([label for _, label in test])))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    synthetic.generate_task(
        folder, num_train=20000, num_dev=300, num_test=2000, num_transfer=1000, seed=1
    )
    return folder


def test_task_is_deterministic_in_the_seed(tmp_path):
    sizes = {"num_train": 50, "num_dev": 10, "num_test": 10, "num_transfer": 20}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthetic.generate_task(tmp_path / name, **sizes, seed=seed)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["dev.tsv", "labels.tsv", "test.tsv", "train.tsv", "transfer.txt"]
    for name in names:
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes()
        if name != "labels.tsv":
            assert first != (tmp_path / "c" / name).read_bytes()


def test_text_does_not_depend_on_the_hash_seed(tmp_path):
    code = (
        "import sys; from xdistil_tf.data import synthetic\n"
        "synthetic.generate_corpus(sys.argv[1], 20, seed=5)\n"
        "synthetic.train_wordpiece(sys.argv[1], 400, sys.argv[2])\n"
    )
    for name in ("1", "2"):
        command = [sys.executable, "-c", code, f"{tmp_path}/{name}.txt", f"{tmp_path}/{name}"]
        subprocess.run(command, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert (tmp_path / "1.txt").read_bytes() == (tmp_path / "2.txt").read_bytes()
    for name in ("vocab.txt", "tokenizer.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_splits_have_their_sizes_and_no_text_twice(task):
    splits = [examples(task / f"{split}.tsv") for split in ("train", "dev", "test")]
    transfer = lines(task / "transfer.txt")
    assert [*map(len, splits), len(transfer)] == [20000, 300, 2000, 1000]
    texts = [text for split in splits for text, _ in split] + transfer
    assert len(set(texts)) == len(texts)


def test_classes_are_balanced(task):
    assert lines(task / "labels.tsv") == ["negative", "positive"]
    for split in ("train", "dev", "test"):
        labels = [label for _, label in examples(task / f"{split}.tsv")]
        assert 0.45 < labels.count("positive") / len(labels) < 0.55


def test_three_classes_are_balanced(tmp_path):
    synthetic.generate_task(tmp_path, num_train=900, num_transfer=0, num_classes=3)
    counts = collections.Counter(label for _, label in examples(tmp_path / "train.tsv"))
    assert set(counts) == {"negative", "neutral", "positive"}
    assert min(counts.values()) > 900 / 3 * 0.9


def test_the_library_reads_the_task(task):
    data = readers.read_task(task, "classification")
    assert data.labels == ("negative", "positive") and not data.pair
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 20000,
        "dev": 300,
        "test": 2000,
    }
    transfer, _ = readers.read_transfer(str(task / "transfer.txt"))
    assert len(transfer) == 1000


def test_words_are_many_and_mostly_rare(task):
    counts = collections.Counter(
        word for text, _ in examples(task / "train.tsv") for word in text.split()
    )
    assert 1000 <= len(counts) <= 2500
    ranked = sorted(counts.values(), reverse=True)
    assert sum(ranked[:100]) > 0.5 * sum(ranked)
    known = {word for text, _ in examples(task / "train.tsv")[:500] for word in text.split()}
    assert len(known) < 0.8 * len(counts)
    assert len(reviews.vocabulary() - set(counts)) < 20


def test_counting_words_only_partly_solves_the_task(task):
    train, test = examples(task / "train.tsv"), examples(task / "test.tsv")
    few = bag_of_words_accuracy(train[:500], test)
    many = bag_of_words_accuracy(train, test)
    assert 0.58 < few < 0.85
    assert few + 0.05 < many < 0.95


def test_corpus_has_one_sentence_a_line_and_empty_lines_between_documents(tmp_path):
    path = tmp_path / "text" / "corpus.txt"
    synthetic.generate_corpus(path, 40, seed=2)
    text = path.read_text(encoding="utf-8")
    documents = [document.splitlines() for document in text.rstrip("\n").split("\n\n")]
    assert len(documents) == 40
    assert all(4 <= len(document) <= 10 for document in documents)
    assert all(line.strip() for document in documents for line in document)
    assert "\t" not in text and text.endswith("\n") and not text.endswith("\n\n")


def test_words_of_one_polarity_keep_each_others_company(tmp_path):
    synthetic.generate_corpus(tmp_path / "corpus.txt", 500, seed=2)
    negative, positive = (
        {word for manner in manners for word in manner.words} for manners in reviews._ADJECTIVES
    )
    same = other = 0
    for document in (tmp_path / "corpus.txt").read_text(encoding="utf-8").split("\n\n"):
        words = document.split()
        counts = [sum(word in family for word in words) for family in (negative, positive)]
        same += sum(count * (count - 1) for count in counts)
        other += 2 * counts[0] * counts[1]
    assert same > 1.5 * other


def test_pairs_are_scored_by_what_they_share(tmp_path):
    synthetic.generate_task(
        tmp_path, "regression", num_train=600, num_dev=20, num_test=20, num_transfer=30
    )
    header, *pairs = examples(tmp_path / "train.tsv")
    assert header == ("text_a", "text_b", "score") and len(pairs) == 600
    scores = np.array([float(score) for _, _, score in pairs])
    assert scores.min() >= 0 and scores.max() <= 5 and scores.max() > 4.5 and scores.min() < 0.5
    overlap = [
        len(set(a.split()) & set(b.split())) / len(set(a.split()) | set(b.split()))
        for a, b, _ in pairs
    ]
    assert 0.3 < np.corrcoef(overlap, scores)[0, 1] < 0.9


def test_the_library_reads_the_pairs(tmp_path):
    synthetic.generate_pairs(tmp_path, num_train=20, num_dev=5, num_test=5, num_transfer=6)
    data = readers.read_task(tmp_path, "regression")
    assert data.pair and len(data.splits["train"]) == 20
    assert all(isinstance(one.label, float) for one in data.splits["dev"])
    transfer, _ = readers.read_transfer(str(tmp_path / "transfer.txt"), True, "regression")
    assert len(transfer) == 6 and all(one.text_b for one in transfer)


def test_tokenizer_loads_in_both_libraries_and_knows_ascii(tmp_path):
    import transformers

    synthetic.generate_corpus(tmp_path / "corpus.txt", 100)
    made = synthetic.train_wordpiece(tmp_path / "corpus.txt", 900, tmp_path / "tokenizer")
    assert made.tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert 800 < made.vocab_size <= 900 and made.kind == "wordpiece" and made.do_lower_case
    loaded = synthetic.tokenization.load_tokenizer(tmp_path / "tokenizer")
    assert loaded.fingerprint == made.fingerprint
    text = "The soup WAS xylophonic, i'd say (42%)!"
    ids = made.encode_batch([text])[0].input_ids
    assert made.unk_id not in ids
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert list(theirs(text)["input_ids"]) == list(ids)


def test_frequent_words_become_one_piece(tmp_path):
    synthetic.generate_corpus(tmp_path / "corpus.txt", 100)
    made = synthetic.train_wordpiece(tmp_path / "corpus.txt", 900, tmp_path / "tokenizer")
    assert {"the", "was", "good", "bad"} <= set(made.tokens)


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="Expected 'classification' or 'regression'.*'ner'"):
        synthetic.generate_task(tmp_path, "ner")
    with pytest.raises(ValueError, match="Expected num_classes 2, 3 or 8. Received: num_classes=4"):
        synthetic.generate_task(tmp_path, num_classes=4)
    with pytest.raises(ValueError, match="positive number of texts. Received: num_dev=0"):
        synthetic.generate_task(tmp_path, num_dev=0)
    with pytest.raises(ValueError, match="positive num_documents. Received: num_documents=0"):
        synthetic.generate_corpus(tmp_path / "corpus.txt", 0)


def test_a_damaged_corpus_and_a_tiny_vocabulary_are_refused(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(ValueError, match="bad.txt line 2: expected UTF-8, received the byte 0xff"):
        synthetic.train_wordpiece(tmp_path / "bad.txt", 500, tmp_path / "tokenizer")
    (tmp_path / "good.txt").write_text("good\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"The alphabet of the corpus needs \d+ tokens.*=50"):
        synthetic.train_wordpiece(tmp_path / "good.txt", 50, tmp_path / "tokenizer")
