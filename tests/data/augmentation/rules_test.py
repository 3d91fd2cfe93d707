"""What rules make of texts: rates, n-grams, words of the same tag, the published borders."""

import collections
import dataclasses
import math

import numpy as np
import pytest

from xdistil_tf.data.augmentation import rules
from xdistil_tf.data.augmentation.sentence_words import Sentence
from xdistil_tf.data.augmentation.settings import RuleSettings

NOTHING = {"p_mask": 0.0, "p_pos": 0.0, "p_ngram": 0.0}


def settings(**given):
    return RuleSettings(**NOTHING | given)


def vary(texts, chosen, n_iter=20, table=None, tags=None, alone=True, seed=0):
    """The variants of texts, and what was counted."""
    counts = collections.Counter()
    tasks = [
        rules.Task(Sentence.of(text), tags[n] if tags else (), 1000 * seed + n, alone)
        for n, text in enumerate(texts)
    ]
    return rules.variants(tasks, chosen, n_iter, table, counts), counts


def texts_of(made):
    return [one.text for variants in made for one in variants]


def near(count, total, share):
    """Whether a count is within three standard deviations of what is expected."""
    return abs(count - total * share) <= 3 * math.sqrt(total * share * (1 - share))


def test_words_are_masked_and_replaced_as_often_as_is_said():
    table = rules.WordsByTag({"N": {"film": 1, "soup": 1}})
    texts = ["a b c d e f g h i j"] * 500
    chosen = settings(p_mask=0.1, p_pos=0.1, p_ngram=0.25)
    _, counts = vary(texts, chosen, 20, table, [[0] * 10] * 500)
    assert counts["words"] == 100_000 and counts["attempts"] == 10_000
    assert near(counts["mask"], counts["words"], 0.1)
    assert near(counts["pos"], counts["words"], 0.1)
    assert near(counts["ngram"], counts["attempts"], 0.25)


@pytest.mark.parametrize("length", [1, 3, 9])
def test_short_texts_often_stay_as_they_are(length):
    table = rules.WordsByTag({"N": {"other": 1}})
    texts = [" ".join("abcdefghi"[:length])] * 500
    made, _ = vary(texts, settings(p_mask=0.1, p_pos=0.1), 20, table, [[0] * length] * 500)
    unchanged = 10_000 - sum(map(len, made))
    assert near(unchanged, 10_000, 0.8**length)


def test_nothing_is_left_where_every_word_is_masked():
    made, counts = vary(["the soup was good", "soup"], settings(p_mask=1.0), 5)
    assert texts_of(made) == [None] * 10 and counts["all_replaced"] == 10
    published = dataclasses.replace(settings(p_mask=1.0), as_published=True)
    made, _ = vary(["the soup"], published, 3, alone=False)  # Of pairs it has no such check.
    assert texts_of(made) == ["[MASK] [MASK]"] * 3


def test_an_n_gram_whose_words_are_all_masked_is_left_out():
    chosen = settings(p_mask=0.5, p_ngram=1.0, ngram_lengths=(1,))
    made, _ = vary(["a b c d"] * 200, chosen)
    assert "[MASK]" not in texts_of(made)
    made, _ = vary(["a b c d"] * 200, dataclasses.replace(chosen, as_published=True))
    assert "[MASK]" in texts_of(made)


def test_n_grams_are_kept_and_reach_the_last_word():
    chosen = settings(p_ngram=1.0, ngram_lengths=(1, 2))
    made, _ = vary(["a b  c d"] * 500, chosen)
    seen = collections.Counter(texts_of(made))
    assert set(seen) == {"a", "b", "c", "d", "a b", "b  c", "c d"}
    for one in "abcd":
        assert near(seen[one], 10_000, 1 / 8)
    for one in ("a b", "b  c", "c d"):
        assert near(seen[one], 10_000, 1 / 6)


def test_a_text_that_is_no_longer_than_its_n_gram_stays_whole():
    chosen = settings(p_ngram=1.0, ngram_lengths=(2, 3))
    made, counts = vary(["a b"] * 10, chosen)
    assert texts_of(made) == [] and counts["attempts"] == 200 and counts["ngram"] == 0


def test_published_n_grams_never_have_the_last_word():
    chosen = dataclasses.replace(settings(p_ngram=1.0, ngram_lengths=(2,)), as_published=True)
    made, _ = vary(["a b c d"] * 200, chosen)
    assert set(texts_of(made)) == {"a b", "b c"}


def test_as_published_a_short_text_alone_is_given_up_and_one_of_a_pair_is_not():
    given = {"p_mask": 0.3, "p_ngram": 0.2, "ngram_lengths": (5,), "as_published": True}
    alone, counts = vary(["a b c"] * 500, settings(**given))
    pair, _ = vary(["a b c"] * 500, settings(**given), alone=False)
    assert counts["attempts"] == pytest.approx(500 * sum(0.8**n for n in range(1, 21)), rel=0.15)
    assert max(one.iteration for variants in pair for one in variants) == 20
    assert len(texts_of(alone)) < len(texts_of(pair)) / 3
    for one, other in zip(alone, pair, strict=True):  # What comes before that is the same.
        kept = [(made.iteration, made.rules) for made in one]
        assert kept == [(made.iteration, made.rules) for made in other][: len(kept)]


def test_words_are_replaced_by_those_of_their_tag_as_often_as_these_stand_there():
    table = rules.WordsByTag({"N": {"film": 3, "soup": 1}, "V": {"was": 5}})
    noun, verb = table.numbers(["N", "V"])
    made, _ = vary(["x y"] * 500, settings(p_pos=1.0, p_ngram=0.0), 20, table, [[noun, verb]] * 500)
    assert set(texts_of(made)) == {None}  # All words are others.
    made, _ = vary(["x y"] * 2000, settings(p_pos=0.5), 20, table, [[noun, verb]] * 2000)
    seen = collections.Counter(filter(None, texts_of(made)))
    assert set(seen) == {"film y", "soup y", "x was"}
    nouns = seen["film y"] + seen["soup y"]
    assert near(seen["soup y"], nouns, 0.25) and nouns > 5000


def test_a_word_takes_the_place_of_a_part_of_another_with_a_space():
    table = rules.WordsByTag({"R": {"very": 1}, "M": {"!": 1}})
    very, mark = table.numbers(["R", "M"])
    made, _ = vary(
        ["is n't isn't"] * 300, settings(p_pos=0.3), 5, table, [[very, very, very, very]] * 300
    )
    found = set(filter(None, texts_of(made)))
    assert "is n't is very" in found and not any("isvery" in one for one in found)
    made, _ = vary(["isn't good."] * 300, settings(p_pos=0.3), 5, table, [[mark] * 4] * 300)
    assert "is! good." in texts_of(made)


def test_what_becomes_of_a_text_depends_on_no_other_and_not_on_how_often():
    table = rules.WordsByTag({"N": {"film": 3, "soup": 1}})
    texts = ["a b c", "d e", "f g h", "i"]
    tags = [[0] * len(text.split()) for text in texts]
    chosen = settings(p_mask=0.2, p_pos=0.2, p_ngram=0.3)
    together, _ = vary(texts, chosen, 20, table, tags)
    for number, text in enumerate(texts):
        task = rules.Task(Sentence.of(text), tags[number], number)
        alone = rules.variants([task], chosen, 7, table, collections.Counter())
        assert alone[0] == [one for one in together[number] if one.iteration <= 7]


def test_rules_that_acted_are_named():
    table = rules.WordsByTag({"N": {"film": 1}})
    chosen = settings(p_mask=0.3, p_pos=0.3, p_ngram=0.5)
    made, _ = vary(["a b c d e f g"] * 50, chosen, 20, table, [[0] * 7] * 50)
    for variants in made:
        for one in variants:
            if one.text is not None:
                assert ("mask" in one.rules) == ("[MASK]" in one.text)
                assert ("pos" in one.rules) == ("film" in one.text)
                assert ("ngram" in one.rules) == (len(one.text.split()) < 7)
    assert {one.rules for variants in made for one in variants} >= {"mask", "mask+pos+ngram"}


def test_a_third_of_the_iterations_varies_each_side_and_a_third_both():
    seen = collections.Counter(side for key in range(2000) for side in rules.sides(key, 10))
    assert set(seen) == {"a", "b", "ab"}
    assert all(near(count, 20_000, 1 / 3) for count in seen.values())


def test_draws_at_the_end_of_a_tag_stay_inside_it():
    table = rules.WordsByTag({"A": {"x": 1, "y": 2}, "B": {"z": 1}})
    tags = np.array(table.numbers(["A", "A", "B"]))
    assert table.draw(tags, np.array([0.0, 1 - 2.0**-53, 1 - 2.0**-53])).tolist() == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"p_mask": 1.5}, "p_mask in .0, 1.. Received: 1.5"),
        ({"p_ngram": -0.1}, "p_ngram in .0, 1.. Received: -0.1"),
        ({"p_mask": 0.6, "p_pos": 0.6}, "at most 1 together"),
        (NOTHING, "else nothing changes"),
        ({"n_iter": 0}, "n_iter of at least 1. Received: 0"),
        ({"num_samples": 0}, "num_samples of at least 1. Received: 0"),
        ({"ngram_lengths": (0, 2)}, "ngram_lengths of at least 1"),
    ],
)
def test_impossible_settings_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RuleSettings(**given)
