"""What may stand in the place of a word, and rounds that replace some of them."""

import collections

import numpy as np
import pytest

from xdistil_tf.data.augmentation import candidates, rounds, words
from xdistil_tf.data.pretraining.vocabulary import Vocabulary
from xdistil_tf.data.tokenization import load_tokenizer

TOKENS = "[PAD] [UNK] [CLS] [SEP] [MASK] the soup was good fine bad , un ##heard ##of 7".split()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n")
    return load_tokenizer(path, True)


class Asked:
    """A masked LM that answers the allowed words in the order of their ids."""

    def __init__(self, wordlist, count=20):
        self.ids = np.flatnonzero(wordlist.allowed)[:count]
        self.batches = []

    def __call__(self, input_ids, segment_ids, lengths, positions):
        self.batches.append((input_ids, segment_ids, lengths, positions))
        return np.tile(self.ids, (len(input_ids), 1))


def find(tokenizer, sentences, neighbours=None, places=None, **options):
    vocabulary, options = Vocabulary.of(tokenizer), candidates.Options(**options)
    wordlist = candidates.Wordlist(tokenizer, vocabulary, options.as_published)
    asked = Asked(wordlist)
    texts = words.read_texts(tokenizer, sentences)
    places = places or [range(len(one.words)) for one in texts]
    found = candidates.find_candidates(
        texts, places, asked, neighbours or {}, wordlist, vocabulary, options
    )
    return found, asked


def test_the_word_special_tokens_continuations_and_punctuation_are_no_candidates(tokenizer):
    found, _ = find(tokenizer, ["the soup was good"])
    assert found[0][1] == ("the", "was", "good", "fine", "bad", "un")
    assert found[0][3] == ("the", "soup", "was", "fine", "bad", "un")
    assert len(found[0]) == 2


def test_a_word_of_several_pieces_takes_its_neighbours_and_others_capitals(tokenizer):
    found, asked = find(
        tokenizer, ["Unheardof Soup"], {"unheardof": ["new", "odd", "rare"]}, count=2
    )
    assert found == [{0: ("New", "Odd"), 1: ("The", "Was")}]
    assert len(asked.batches) == 1 and len(asked.batches[0][0]) == 1
    assert find(tokenizer, ["unheardof , 7"])[0] == [{}]


def test_the_masked_place_is_asked_about_once_and_batched_by_length(tokenizer):
    sentences = ["soup", "the soup was good", "good soup"]
    _, asked = find(tokenizer, sentences, batch_tokens=9)
    rows = [
        (ids[:length].tolist(), position)
        for batch in asked.batches
        for ids, length, position in zip(batch[0], batch[2], batch[3], strict=True)
    ]
    assert len(rows) == 5 and all(ids[place] == 4 for ids, place in rows)
    assert all(ids[0] == 2 and ids[-1] == 3 for ids, _ in rows)
    assert max(batch[0].size for batch in asked.batches) <= 9
    assert not any(batch[1].any() for batch in asked.batches)


def test_only_words_in_question_are_asked_about(tokenizer):
    sentences, places = ["the soup was good", "good soup"], [{3}, {1}]
    found, asked = find(tokenizer, sentences, places=places)
    assert [list(one) for one in found] == [[3], [1]]
    assert sum(len(batch[0]) for batch in asked.batches) == 2


def test_as_published_the_text_stands_behind_itself_and_the_word_is_a_candidate(tokenizer):
    found, asked = find(tokenizer, ["the soup"], as_published=True, count=16)
    ((input_ids, segment_ids, lengths, positions),) = asked.batches
    assert input_ids.tolist() == [[2, 5, 4, 3, 5, 6, 3]] and lengths.tolist() == [7]
    assert segment_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1]] and positions.tolist() == [2]
    # Of 16 pieces two go on with a word.
    assert found[0][1] == (*TOKENS[:13], "7")


def test_a_batch_has_no_more_rows_than_its_scores_fit_into(tokenizer, monkeypatch):
    monkeypatch.setattr(candidates, "_SCORES", 2 * len(TOKENS) + 1)
    _, asked = find(tokenizer, ["soup good fine bad soup"])
    assert [len(batch[0]) for batch in asked.batches] == [2, 2, 1]


def test_words_beyond_the_length_of_the_model_have_none(tokenizer):
    found, asked = find(tokenizer, ["soup was good"], max_length=4)
    assert list(found[0]) == [0]
    assert asked.batches[0][0].tolist() == [[2, 4, 7, 3]]  # The end of a text is never cut.


def augmented(tokenizer, sentence, choices, key=("train:1",), number=50, prob=0.4):
    (text,) = words.read_texts(tokenizer, [sentence])
    return list(rounds.augmented_texts(text, choices, number, prob, key))


def test_rounds_keep_what_stands_around_the_words(tokenizer):
    made = augmented(tokenizer, "The  soup, was GOOD!", {1: ("broth",), 4: ("fine",)}, prob=1.0)
    assert made == [(1, "The  broth, was fine!")]  # Later rounds say the same.


def test_what_is_drawn_is_what_is_replaced(tokenizer):
    (text,) = words.read_texts(tokenizer, ["the soup was good , good soup !"])
    choices = {place: ("x",) for place in range(len(text.words))}
    drawn = rounds.drawn_words(text, 30, 0.4, ("train:1",))
    made = dict(rounds.augmented_texts(text, choices, 30, 0.4, ("train:1",)))
    said = {number: set(one) for number, one in enumerate(drawn, start=1)}
    changed = {
        number: {place for place, word in enumerate(one.split()) if word == "x"}
        for number, one in made.items()
    }
    assert len(made) > 5 and all(said[number] == places for number, places in changed.items())


def test_each_word_is_replaced_with_the_probability(tokenizer):
    # So many that hardly any round says what another one said.
    choices = {1: range(100_000), 3: range(100_000)}
    choices = {place: [f"x{n}" for n in numbers] for place, numbers in choices.items()}
    made = [text for _, text in augmented(tokenizer, "the soup was good", choices, number=4000)]
    counts = collections.Counter(("soup" in text, "good" in text) for text in made)
    assert counts[True, True] == 0  # Nothing new.
    share = counts[False, False] / len(made)
    assert abs(share - 0.16 / 0.64) < 0.05


def test_a_round_follows_from_its_key_alone(tokenizer):
    choices = {1: ("broth", "stew", "tea"), 3: ("fine", "bad", "odd")}
    first = augmented(tokenizer, "the soup was good", choices)
    assert first == augmented(tokenizer, "the soup was good", choices)
    assert first != augmented(tokenizer, "the soup was good", choices, key=("train:2",))
    more = augmented(tokenizer, "the soup was good", choices, number=80)
    assert more[: len(first)] == first
    assert len({text for _, text in more}) == len(more)
