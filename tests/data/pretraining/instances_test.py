"""Instances against what google-research/bert's rules say must come out."""

import collections
import itertools
import random
from typing import NamedTuple

import numpy as np
import pytest

from xdistil_tf.data.pretraining import draws, instances, masking, shards
from xdistil_tf.data.pretraining.settings import Settings, num_predictions
from xdistil_tf.data.pretraining.vocabulary import Vocabulary

PAD, UNK, CLS, SEP, MASK = range(5)
SIZE = 10000
SPECIAL = frozenset(range(5))
VOCABULARY = Vocabulary(
    cls_id=CLS,
    sep_id=SEP,
    mask_id=MASK,
    special=np.arange(SIZE) < 5,
    continues=np.arange(SIZE) % 3 == 0,
)


class Instance(NamedTuple):
    input_ids: list
    segment_ids: list
    masked_lm_positions: list
    masked_lm_ids: list
    is_random_next: bool | None


class Memory:
    """A store of documents that stand in memory."""

    def __init__(self, documents):
        sentences = list(itertools.chain.from_iterable(documents))
        self._tokens = np.array(list(itertools.chain.from_iterable(sentences)))
        self._borders = np.cumsum([0, *map(len, sentences)]).tolist()
        self._documents = np.cumsum([0, *map(len, documents)]).tolist()

    def borders(self, number):
        return self._borders[self._documents[number] : self._documents[number + 1] + 1]

    def tokens(self, start, stop):
        return self._tokens[start:stop]

    def gather(self, starts, lengths):
        spans = zip(starts, starts + lengths, strict=True)
        return np.concatenate([self.tokens(*one) for one in spans])


def numbered_documents(count=40, sentences=12, words=9):
    """Every token tells its document: id = 10 + 200 * document + its place."""
    return [
        [
            [10 + 200 * document + sentence * words + word for word in range(words)]
            for sentence in range(sentences)
        ]
        for document in range(count)
    ]


def made(documents=None, seed=1, vocabulary=VOCABULARY, **options):
    """The instances of all documents in all passes."""
    documents = numbered_documents() if documents is None else documents
    settings, store, plans = Settings(**options), Memory(documents), []
    for number, round_ in itertools.product(range(len(documents)), range(settings.dupe_factor)):
        rng = random.Random(draws.key(seed, round_, number))

        def other(rng, number=number):
            return store.borders(rng.choice([k for k in range(len(documents)) if k != number]))

        plans += instances.plan_document(store.borders(number), rng, settings, other)
    table = np.array([(0, *plan) for plan in plans], shards._PLANS)
    batch = shards.assemble(store, vocabulary, settings, table)
    masking.mask(batch, table["key"], vocabulary, settings)
    return list(unpadded(batch))


def unpadded(batch):
    for row, (length, count) in enumerate(zip(batch.lengths, batch.counts, strict=True)):
        assert not batch.input_ids[row, length:].any()
        assert not batch.positions[row, count:].any() and not batch.masked_ids[row, count:].any()
        yield Instance(
            batch.input_ids[row, :length].tolist(),
            batch.segment_ids[row, :length].tolist(),
            batch.positions[row, :count].tolist(),
            batch.masked_ids[row, :count].tolist(),
            None if batch.is_random_next is None else bool(batch.is_random_next[row]),
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


def cut_by_the_plain_loop(sentences, rng, target, others):
    """Sentence after sentence, as the original does it; lists of tokens."""
    chunk, length, i = [], 0, 0
    while i < len(sentences):
        chunk.append(sentences[i])
        length += len(sentences[i])
        if i == len(sentences) - 1 or length >= target:
            a_end = 1 + int(rng.random() * (len(chunk) - 1)) if len(chunk) >= 2 else 1
            a = list(itertools.chain.from_iterable(chunk[:a_end]))
            if len(chunk) == 1 or rng.random() < 0.5:
                other, b = rng.choice(others), []
                for sentence in other[int(rng.random() * len(other)) :]:
                    b += sentence
                    if len(b) >= target - len(a):
                        break
                i -= len(chunk) - a_end
                yield a, b, True
            else:
                yield a, list(itertools.chain.from_iterable(chunk[a_end:])), False
            chunk, length = [], 0
        i += 1


def test_documents_are_cut_where_the_plain_loop_cuts_them():
    lengths = random.Random(0)
    counter = itertools.count(10)
    documents = [
        [[next(counter) for _ in range(lengths.randint(1, 30))] for _ in range(size)]
        for size in (1, 2, 5, 40, 200)
    ]
    store = Memory(documents)
    for number, target in itertools.product(range(len(documents)), (2, 9, 61, 125)):
        others = [k for k in range(len(documents)) if k != number]
        found = instances.segment_pairs(
            store.borders(number),
            random.Random(target),
            target,
            lambda rng, others=others: store.borders(rng.choice(others)),
        )
        expected = cut_by_the_plain_loop(
            documents[number], random.Random(target), target, [documents[k] for k in others]
        )
        assert [
            (store.tokens(*cut[:2]).tolist(), store.tokens(*cut[2:4]).tolist(), cut[4])
            for cut in found
        ] == list(expected)


def test_half_of_the_next_segments_are_random():
    # Only the last chunk can have one sentence, which is always followed by a random segment.
    document, other = list(range(60001)), list(range(70000, 70100))
    pairs = instances.segment_pairs(document, random.Random(2), 20, lambda rng: other)
    drawn = [cut[4] for cut in pairs]
    assert len(drawn) > 2000
    assert abs(np.mean(drawn[:-1]) - 0.5) < 2 / np.sqrt(len(drawn))


def test_a_tenth_of_the_documents_aims_at_a_shorter_length():
    rng, settings, count = random.Random(5), Settings(), 20000
    targets = [instances.target_length(settings, rng) for _ in range(count)]
    # A short length is drawn from 2 to 125, both of them possible.
    expected = 0.1 * 123 / 124
    assert abs(np.mean(np.array(targets) < 125) - expected) < 4 * np.sqrt(0.09 / count)
    assert min(targets) == 2 and max(targets) == 125


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


def truncated_one_by_one(length_a, length_b, room):
    """How long both sides are when tokens are dropped as the original drops them."""
    while length_a + length_b > room:
        if length_a > length_b:
            length_a -= 1
        else:
            length_b -= 1
    return length_a, length_b


def test_truncation_leaves_of_each_segment_what_dropping_one_by_one_leaves():
    pairs = list(itertools.product(range(1, 30), range(1, 30)))
    a, b = np.array(pairs).T
    keys = np.arange(len(pairs), dtype=np.uint64)
    for room in (1, 2, 7, 25, 60):
        front_a, left_a, front_b, left_b = instances.truncate(a, b, room, keys)
        assert list(zip(left_a, left_b, strict=True)) == [
            truncated_one_by_one(*pair, room) for pair in pairs
        ]
        for length, front, left in ((a, front_a, left_a), (b, front_b, left_b)):
            assert (front >= 0).all() and (front + left <= length).all()


def test_tokens_are_dropped_at_either_end_by_chance():
    count = 4000
    keys = draws.numbers(np.zeros(1, np.uint64), 9, count)[0]
    lengths = np.full(count, 100), np.full(count, 30)
    front_a, left_a, front_b, _ = instances.truncate(*lengths, 50, keys)
    dropped = 100 - left_a[0]
    assert dropped == 75
    assert abs(front_a.mean() - dropped / 2) < 4 * np.sqrt(dropped / 4 / count)
    assert abs(front_a.var() - dropped / 4) < 4 * dropped / 4 * np.sqrt(2 / count)
    assert abs(np.corrcoef(front_a, front_b)[0, 1]) < 4 / np.sqrt(count)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(128, 19), (3, 1), (10, 2), (30, 4), (50, 8), (70, 10), (134, 20), (512, 20)],
)
def test_number_of_predictions_is_berts(length, expected):
    # 0.15 * 10 = 1.5 and 0.15 * 30 = 4.5 round to the even neighbour.
    assert num_predictions(length, Settings()) == expected


def test_full_instances_have_exactly_nineteen_predictions():
    long = numbered_documents(20, sentences=18, words=11)
    full = [one for one in made(long, dupe_factor=5) if len(one.input_ids) == 128]
    assert len(full) > 50
    assert all(len(one.masked_lm_positions) == 19 for one in full)


def test_as_many_tokens_are_predicted_as_the_length_says():
    for whole in (False, True):
        found = made(do_whole_word_mask=whole, dupe_factor=3)
        wanted = [num_predictions(len(one.input_ids), Settings()) for one in found]
        counts = [len(one.masked_lm_positions) for one in found]
        # A word that does not fit any more may leave a slot empty.
        assert counts == wanted if not whole else np.mean(counts) > 0.98 * np.mean(wanted)


def test_a_sentence_of_one_token_has_one_prediction():
    found = made([[[10]], [[400]]], next_sentence=False)
    assert [len(one.input_ids) for one in found] == [3, 3]
    assert all(one.masked_lm_positions == [1] for one in found)


def test_every_token_is_as_likely_to_be_predicted():
    starts = np.ones((1, 42), np.int8)
    starts[0, [0, 20]] = -1
    count = 5000
    keys = draws.numbers(np.array([7], np.uint64), 3, count)[0]
    for choose in (masking._choose_pieces, masking._choose_words):
        chosen = choose(np.repeat(starts, count, axis=0), np.full(count, 6), keys)
        assert (chosen.sum(axis=1) == 6).all() and not chosen[:, [0, 20]].any()
        shares = chosen.mean(axis=0)[np.flatnonzero(starts[0] == 1)]
        assert np.abs(shares - 6 / 40).max() < 4 * np.sqrt(0.15 * 0.85 / count)


def test_special_tokens_are_never_predicted():
    documents = numbered_documents()
    documents[0] = [[UNK, MASK, 11, UNK, 12, UNK], [UNK, UNK], [13, UNK]]
    for instance in made(documents, dupe_factor=20, masked_lm_prob=0.5):
        assert not set(instance.masked_lm_ids) & SPECIAL
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
        if token not in SPECIAL:
            if VOCABULARY.continues[token] and before not in SPECIAL:
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
        assert len(chosen) <= num_predictions(len(instance.input_ids), Settings())
    assert whole > 50


def test_words_that_do_not_fit_are_passed_over():
    starts = np.array([[-1, 1, 0, 0, 1, -1]] * 50, np.int8)
    keys = np.arange(50, dtype=np.uint64)
    chosen = masking._choose_words(starts, np.full(50, 2), keys)
    assert (chosen == [False, False, False, False, True, False]).all()
    chosen = masking._choose_words(starts, np.full(50, 3), keys)
    shares = collections.Counter(map(tuple, chosen[:, 1:5].tolist()))
    assert set(shares) == {(True, True, True, False), (False, False, False, True)}


def test_dupe_factor_repeats_documents_with_other_masks():
    once, thrice = made(dupe_factor=1), made(dupe_factor=3)
    assert 2.5 < len(thrice) / len(once) < 3.5


def test_instances_follow_from_the_seed():
    assert made(seed=3) == made(seed=3)
    assert made(seed=3) != made(seed=4)


def test_short_sequences_are_as_frequent_as_asked():
    long = numbered_documents(49, sentences=4, words=12)
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_seq_length": 3}, "max_seq_length. Expected at least 8. Received: max_seq_length=3"),
        ({"masked_lm_prob": 1.0}, "masked_lm_prob. Expected a share from 0 to below 1"),
        ({"dupe_factor": 0}, "dupe_factor. Expected at least 1"),
        ({"max_predictions_per_seq": 0}, "max_predictions_per_seq. Expected at least 1"),
        ({"short_seq_prob": 2.0}, "short_seq_prob. Expected a share"),
        ({"max_seq_length": 70000}, "max_seq_length. Expected at most 65535"),
        ({"dynamic_masking": True, "dupe_factor": 2}, "dupe_factor=1. Received: dupe_factor=2"),
        ({"dynamic_masking": True, "masked_lm_prob": 0}, "masked_lm_prob above 0"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_word_starts_say_where_words_begin():
    tokens = np.array([[CLS, 10, 12, 15, UNK, 18, SEP, 21, 24, SEP, PAD]])
    starts = masking.word_starts(tokens, VOCABULARY, tokens == PAD)
    # 12, 15, 18, 21 and 24 go on with a word, unless nothing stands before them.
    assert starts.tolist() == [[-1, 1, 0, 0, -1, 1, -1, 1, 0, -1, -1]]


def test_draws_depend_on_key_and_stream_alone():
    keys = np.array([3, 4, 5], np.uint64)
    every = draws.numbers(keys, 1, 8)
    assert (draws.numbers(keys[1:2], 1, 8) == every[1]).all()
    assert (draws.numbers(keys, 1, 3, first=5) == every[:, 5:]).all()
    assert len(np.unique(np.concatenate([every, draws.numbers(keys, 2, 8)]))) == 48
    tosses = np.array([0, 64, 200])
    heads = draws.heads(keys, 1, tosses)
    assert heads[0] == 0 and heads[1] == int(every[1, 0]).bit_count()
    bits = [int(one) for one in every[2, :4]]
    expected = sum(one.bit_count() for one in bits[:3]) + (bits[3] >> 56).bit_count()
    assert heads[2] == expected


def test_a_mean_of_draws_is_a_half():
    shares = draws.shares(draws.numbers(np.arange(300, dtype=np.uint64), 4, 300))
    assert shares.min() >= 0 and shares.max() < 1
    assert abs(shares.mean() - 0.5) < 4 / np.sqrt(12 * shares.size)
    assert np.abs(shares.mean(axis=0) - 0.5).max() < 5 / np.sqrt(12 * 300)
