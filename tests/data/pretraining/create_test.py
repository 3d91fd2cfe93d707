import collections
import random

import numpy as np
import pytest

from xdistil_tf import files, versions
from xdistil_tf.data import pretraining, synthetic
from xdistil_tf.data.instances import Settings, Vocabulary
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.tokenization import load_tokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
SIZE = 10000
VOCABULARY = Vocabulary(
    cls_id=CLS,
    sep_id=SEP,
    mask_id=MASK,
    size=SIZE,
    special_ids=frozenset(range(5)),
    continues=tuple(token_id % 3 == 0 for token_id in range(SIZE)),
)


def numbered_documents(count=40, sentences=12, words=9):
    """Every token tells its document: id = 10 + 200 * document + its place."""
    return [
        [
            [10 + 200 * document + sentence * words + word for word in range(words)]
            for sentence in range(sentences)
        ]
        for document in range(count)
    ]


def made(documents=None, seed=1, vocabulary=VOCABULARY, **settings):
    documents = numbered_documents() if documents is None else documents
    return instances.create_instances(
        documents, random.Random(seed), vocabulary, Settings(**settings)
    )


def originals(instance):
    """The tokens before masking."""
    tokens = list(instance.input_ids)
    for position, token in zip(instance.masked_lm_positions, instance.masked_lm_ids, strict=True):
        tokens[position] = token
    return tokens


def segments(instance):
    tokens = originals(instance)
    middle = tokens.index(SEP)
    return tokens[1:middle], tokens[middle + 1 : -1]


def documents_of(tokens):
    return {(token - 10) // 200 for token in tokens}


def test_instances_are_two_segments_within_special_tokens():
    for instance in made(max_seq_length=64, dupe_factor=3):
        tokens = originals(instance)
        assert tokens[0] == CLS and tokens[-1] == SEP and tokens.count(SEP) == 2
        assert len(tokens) <= 64
        first, second = segments(instance)
        assert first and second
        expected = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert instance.segment_ids == expected


def test_a_random_next_segment_never_comes_from_the_same_document():
    for count in (2, 3, 40):
        for instance in made(numbered_documents(count), max_seq_length=32, dupe_factor=5):
            first, second = map(documents_of, segments(instance))
            assert len(first) == len(second) == 1
            assert (first != second) == instance.is_random_next


def test_an_actual_next_segment_continues_the_first():
    complete = [one for one in made(max_seq_length=128, short_seq_prob=0.0)]
    for instance in complete:
        first, second = segments(instance)
        if not instance.is_random_next and len(instance.input_ids) < 128:
            assert second[0] == first[-1] + 1


def test_half_of_the_next_segments_are_random():
    drawn = [one.is_random_next for one in made(dupe_factor=30, short_seq_prob=0.0)]
    # 12 sentences of 9 tokens fill one chunk of at least 2; a chunk of 1 is always random.
    share = np.mean(drawn)
    assert 0.5 - 4 / np.sqrt(len(drawn)) < share < 0.75


def test_single_sentence_documents_have_only_random_next_segments():
    assert all(one.is_random_next for one in made(numbered_documents(20, sentences=1)))


def test_every_token_is_used_each_round():
    used = collections.Counter()
    for instance in made(max_seq_length=512, masked_lm_prob=0.0, short_seq_prob=1.0):
        first, second = segments(instance)
        used.update(first if instance.is_random_next else first + second)
    tokens = [
        token for document in numbered_documents() for sentence in document for token in sentence
    ]
    truncated = sum(not used[token] for token in tokens)
    assert truncated < 0.05 * len(tokens) and max(used.values()) == 1


def test_truncation_shortens_the_longer_segment_at_both_ends():
    a, b = list(range(100)), list(range(200, 230))
    fronts = set()
    for seed in range(20):
        short_a, short_b = instances.truncate_pair(a, b, 50, random.Random(seed))
        assert len(short_a) + len(short_b) == 50
        assert (len(short_a), len(short_b)) == (25, 25)
        assert short_a == list(range(short_a[0], short_a[0] + 25))
        assert short_b == list(range(short_b[0], short_b[0] + 25))
        fronts.add(short_a[0])
    assert len(fronts) > 5
    assert instances.truncate_pair(a[:9], b[:9], 50, random.Random(0)) == (a[:9], b[:9])
    # Equal lengths: the second segment loses first.
    short_a, short_b = instances.truncate_pair(a[:9], b[:9], 17, random.Random(0))
    assert (len(short_a), len(short_b)) == (9, 8)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(128, 19), (3, 1), (10, 2), (30, 4), (50, 8), (70, 10), (134, 20), (512, 20)],
)
def test_number_of_predictions_is_berts(length, expected):
    # 0.15 * 10 = 1.5 and 0.15 * 30 = 4.5 round to the even neighbour.
    assert instances.num_predictions(length, Settings()) == expected


def test_full_instances_have_exactly_nineteen_predictions():
    long = numbered_documents(20, sentences=18, words=11)
    full = [one for one in made(long, dupe_factor=5) if len(one.input_ids) == 128]
    assert len(full) > 50
    assert all(len(one.masked_lm_positions) == 19 for one in full)


def test_special_tokens_are_never_predicted():
    documents = numbered_documents()
    documents[0] = [[UNK, MASK, 11, UNK, 12, UNK], [UNK, UNK], [13, UNK]]
    for instance in made(documents, dupe_factor=20, masked_lm_prob=0.5):
        assert not set(instance.masked_lm_ids) & VOCABULARY.special_ids
        assert instance.masked_lm_positions == sorted(set(instance.masked_lm_positions))


def test_masking_is_eighty_ten_ten():
    counts = collections.Counter()
    for instance in made(dupe_factor=60):
        for position, token in zip(
            instance.masked_lm_positions, instance.masked_lm_ids, strict=True
        ):
            now = instance.input_ids[position]
            counts["mask" if now == MASK else "kept" if now == token else "random"] += 1
    total = sum(counts.values())
    assert total > 10000
    for name, share in (("mask", 0.8), ("kept", 0.1), ("random", 0.1)):
        error = 4 * np.sqrt(share * (1 - share) / total)
        assert abs(counts[name] / total - share) < error, name


def test_random_tokens_are_uniform_over_the_vocabulary():
    drawn = [
        instance.input_ids[position]
        for instance in made(dupe_factor=60)
        for position, token in zip(
            instance.masked_lm_positions, instance.masked_lm_ids, strict=True
        )
        if instance.input_ids[position] not in (MASK, token)
    ]
    mean_error = SIZE / np.sqrt(12 * len(drawn))
    assert abs(np.mean(drawn) - SIZE / 2) < 4 * mean_error


def test_a_probability_of_zero_masks_nothing():
    for instance in made(masked_lm_prob=0.0):
        assert not instance.masked_lm_positions and MASK not in instance.input_ids


def words_of(tokens):
    """Positions of each word; the first token of a segment begins one."""
    words, before = [], CLS
    for position, token in enumerate(tokens):
        if token not in VOCABULARY.special_ids:
            if VOCABULARY.continues[token] and before not in VOCABULARY.special_ids:
                words[-1].append(position)
            else:
                words.append([position])
        before = token
    return words


def test_whole_word_masking_keeps_pieces_together():
    whole = 0
    for instance in made(do_whole_word_mask=True, dupe_factor=5, max_seq_length=48):
        chosen = set(instance.masked_lm_positions)
        for word in words_of(originals(instance)):
            assert chosen.isdisjoint(word) or chosen.issuperset(word)
            whole += len(word) > 1 and chosen.issuperset(word)
        assert len(chosen) <= instances.num_predictions(len(instance.input_ids), Settings())
    assert whole > 50


def test_words_that_do_not_fit_are_passed_over():
    positions = instances.choose_positions([[1, 2, 3], [4]], 2, random.Random(0))
    assert positions == [4]


def test_dupe_factor_repeats_documents_with_other_masks():
    once, thrice = made(dupe_factor=1), made(dupe_factor=3)
    assert 2.5 < len(thrice) / len(once) < 3.5


def test_instances_follow_from_the_seed():
    assert made(seed=3) == made(seed=3)
    assert made(seed=3) != made(seed=4)


def test_short_sequences_are_as_frequent_as_asked():
    long = numbered_documents(200, sentences=4, words=12)
    lengths = [len(one.input_ids) for one in made(long, max_seq_length=40, short_seq_prob=0.0)]
    assert np.mean(np.array(lengths) >= 30) > 0.7
    short = [len(one.input_ids) for one in made(long, max_seq_length=40, short_seq_prob=1.0)]
    assert np.mean(short) < np.mean(lengths)


def test_without_next_sentences_every_token_is_used_once():
    documents = [[[10, 11, 12], list(range(20, 50)), [60]], [[70] * 4]]
    found = made(
        documents, next_sentence=False, max_seq_length=12, masked_lm_prob=0.0, short_seq_prob=0.0
    )
    assert all(len(one.input_ids) <= 12 and set(one.segment_ids) == {0} for one in found)
    assert all(one.is_random_next is None for one in found)
    tokens = sorted(token for one in found for token in one.input_ids[1:-1])
    assert tokens == sorted(token for document in documents for line in document for token in line)


def test_a_very_long_sentence_is_truncated_quickly():
    documents = [[list(range(10, 9010)) * 20], [[10, 11]]]
    assert max(len(one.input_ids) for one in made(documents)) == 128


def test_features_are_padded_as_bert_pads_them():
    settings = Settings(max_seq_length=8, max_predictions_per_seq=3)
    one = instances.Instance([2, 7, 3, 4, 3], [0, 0, 0, 1, 1], [3], [9], True)
    assert instances.instance_features(one, settings) == {
        "input_ids": [2, 7, 3, 4, 3, 0, 0, 0],
        "input_mask": [1, 1, 1, 1, 1, 0, 0, 0],
        "segment_ids": [0, 0, 0, 1, 1, 0, 0, 0],
        "masked_lm_positions": [3, 0, 0],
        "masked_lm_ids": [9, 0, 0],
        "masked_lm_weights": [1.0, 0.0, 0.0],
        "next_sentence_labels": [1],
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_seq_length": 3}, "max_seq_length. Expected at least 8. Received: max_seq_length=3"),
        ({"masked_lm_prob": 1.0}, "masked_lm_prob. Expected a share from 0 to below 1"),
        ({"dupe_factor": 0}, "dupe_factor. Expected at least 1"),
        ({"max_predictions_per_seq": 0}, "max_predictions_per_seq. Expected at least 1"),
        ({"short_seq_prob": 2.0}, "short_seq_prob. Expected a share"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


# Files.


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    synthetic.generate_corpus(folder / "corpus.txt", 80, seed=1)
    tokenizer = synthetic.train_wordpiece(folder / "corpus.txt", 700, folder / "tokenizer")
    return folder / "corpus.txt", tokenizer


def decoded(folder, split):
    records = RecordSet(str(folder / f"{split}-*"))
    return records, [decode_example(records.read(i), str(i)) for i in range(len(records))]


def test_records_hold_berts_features(corpus, tmp_path):
    path, tokenizer = corpus
    manifest = pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    records, rows = decoded(tmp_path, "train")
    assert len(records) == manifest["splits"]["train"]["records"]
    for row in rows:
        assert {name: len(values) for name, values in row.items()} == {
            "id": 1,
            "input_ids": 48,
            "input_mask": 48,
            "segment_ids": 48,
            "masked_lm_positions": 20,
            "masked_lm_ids": 20,
            "masked_lm_weights": 20,
            "next_sentence_labels": 1,
        }
        assert row["input_ids"][0] == tokenizer.cls_id
    assert (
        sum(sum(row["masked_lm_weights"]) for row in rows)
        == (manifest["splits"]["train"]["masked"])
    )
    assert sum(sum(row["input_mask"]) for row in rows) == manifest["splits"]["train"]["tokens"]
    assert manifest["splits"]["heldout"]["documents"] == 4
    assert manifest["splits"]["train"]["documents"] == 76


def test_index_counts_real_tokens(corpus, tmp_path):
    path, tokenizer = corpus
    pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    records, rows = decoded(tmp_path, "train")
    assert records.lengths.tolist() == [sum(row["input_mask"]) for row in rows]


def test_pipeline_reads_the_records(corpus, tmp_path):
    path, tokenizer = corpus
    pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    batch = next(iter(Batches(RecordSet(str(tmp_path / "train-*")), 8).dataset(0, 1)))
    rows = {row["id"][0]: row for row in decoded(tmp_path, "train")[1]}
    length = int(batch["input_mask"].numpy().sum(axis=1).max())
    for number, name in enumerate(batch["id"].numpy()):
        for key in ("input_ids", "segment_ids", "masked_lm_positions", "masked_lm_ids"):
            read, wrote = batch[key].numpy()[number], rows[name][key]
            assert read[:length].tolist() == wrote[: min(length, len(read))]
        assert batch["next_sentence_labels"].numpy()[number] == rows[name]["next_sentence_labels"]
        assert sum(batch["masked_lm_weights"].numpy()[number]) == sum(
            rows[name]["masked_lm_weights"]
        )


def test_train_and_heldout_share_no_document(corpus, tmp_path):
    path, tokenizer = corpus
    settings = {"max_seq_length": 512, "masked_lm_prob": 0.0, "short_seq_prob": 0.0}
    pretraining.write_pretraining_records(
        path, tokenizer, tmp_path, **settings, next_sentence=False, heldout_fraction=0.2
    )
    texts = {}
    for split in ("train", "heldout"):
        rows = decoded(tmp_path, split)[1]
        assert all("next_sentence_labels" not in row for row in rows)
        texts[split] = {tuple(row["input_ids"]) for row in rows}
    assert len(texts["heldout"]) == 16 and len(texts["train"]) == 64
    assert not texts["train"] & texts["heldout"]


def test_result_is_reused_until_something_changes(corpus, tmp_path):
    path, tokenizer = corpus
    first = pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    stamp = (tmp_path / "pretraining.json").stat().st_mtime_ns
    again = pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    assert again == first == files.read_json(tmp_path / "pretraining.json")
    assert (tmp_path / "pretraining.json").stat().st_mtime_ns == stamp
    assert first["versions"] == versions.environment()
    other = pretraining.write_pretraining_records(
        path, tokenizer, tmp_path, max_seq_length=48, heldout_fraction=0, num_shards=2
    )
    assert other["fingerprint"] != first["fingerprint"] and "heldout" not in other["splits"]
    names = sorted(one.name for one in tmp_path.glob("*.tfrecord"))
    assert names == [f"train-0000{number}-of-00002.tfrecord" for number in (0, 1)]
    assert load_tokenizer(tmp_path / "tokenizer").fingerprint == tokenizer.fingerprint


def test_equal_input_gives_equal_bytes(corpus, tmp_path):
    path, tokenizer = corpus
    for name in ("a", "b"):
        pretraining.write_pretraining_records(path, tokenizer, tmp_path / name, max_seq_length=48)
    for one in (tmp_path / "a").glob("*.tfrecord"):
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()


def test_a_file_ends_a_document(tokenizer, write):
    folder = write({"a.txt": "good film\nbad film", "b.txt": "the film\n"})
    manifest = pretraining.write_pretraining_records(
        f"{folder}/*.txt", tokenizer, folder / "records", heldout_fraction=0
    )
    assert manifest["splits"]["train"]["documents"] == 2


def test_bad_text_is_named(tokenizer, write):
    folder = write(
        {"bytes.txt": b"good\n\nb\xe4d\n", "empty.txt": "\n \n", "one.txt": "good film\nbad film\n"}
    )

    def create(name, **options):
        return pretraining.write_pretraining_records(
            folder / name, tokenizer, folder / "records", **options
        )

    with pytest.raises(ValueError, match="bytes.txt line 3: expected UTF-8.*0xe4.*Convert"):
        create("bytes.txt")
    with pytest.raises(ValueError, match="empty.txt is empty. Expected one sentence a line"):
        create("empty.txt")
    with pytest.raises(FileNotFoundError, match="No file matches .*missing.txt"):
        create("missing.txt")
    with pytest.raises(
        ValueError, match="at least 4 .*Received: 1.*empty line.*next_sentence=False"
    ):
        create("one.txt")
    with pytest.raises(ValueError, match="at least 2 .*Received: 1.*next_sentence=False"):
        create("one.txt", heldout_fraction=0)
    with pytest.raises(ValueError, match="heldout_fraction from 0 to 0.5. Received: 0.9"):
        create("one.txt", heldout_fraction=0.9)
    done = create("one.txt", heldout_fraction=0, next_sentence=False)
    assert done["splits"]["train"]["records"] == 1


def test_a_vocabulary_without_mask_is_refused(write):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"]
    folder = write({"vocab.txt": "\n".join(tokens) + "\n", "text.txt": "good\n\nbad\n"})
    unmasked = load_tokenizer(folder / "vocab.txt", do_lower_case=True)
    options = {"heldout_fraction": 0}
    with pytest.raises(ValueError, match=r"has no \[MASK\].*masked_lm_prob=0"):
        pretraining.write_pretraining_records(
            folder / "text.txt", unmasked, folder / "records", **options
        )
    manifest = pretraining.write_pretraining_records(
        folder / "text.txt", unmasked, folder / "records", masked_lm_prob=0.0, **options
    )
    assert manifest["splits"]["train"]["masked"] == 0


def test_task_records_are_not_touched(corpus, tmp_path):
    (tmp_path / "task.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds the records of a task. Choose another output_dir"):
        pretraining.write_pretraining_records(corpus[0], corpus[1], tmp_path)
