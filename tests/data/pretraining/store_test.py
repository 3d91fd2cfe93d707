import os
import resource

import numpy as np
import pytest

from xdistil_tf.data.pretraining import splits, store, text, words

DOCUMENTS = [["good film", "bad"], ["the"], ["\u200b"], ["good film", "bad"], ["a", "\u200b", "in"]]


def write_store(folder, parts, tokenizer, kind="<u2"):
    folder.mkdir(exist_ok=True)
    for number, documents in enumerate(parts):
        part = text.Part(number, "a.txt", 0, 1)
        tokenize = words.fast_tokenization(tokenizer)
        store.write_part(folder, part, map(iter, documents), tokenize, np.dtype(kind))
    store.merge_parts(folder, len(parts), np.dtype(kind))
    return store.Store(folder)


def contents(opened):
    found = []
    for number in range(len(opened)):
        borders = opened.borders(number).tolist()
        found.append(
            [opened.tokens(*one).tolist() for one in zip(borders[:-1], borders[1:], strict=True)]
        )
    return found


@pytest.mark.parametrize("kind", ["<u2", "<u4"])
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5])
def test_tokens_are_found_by_document_and_sentence_in_any_parts(tokenizer, tmp_path, cut, kind):
    opened = write_store(tmp_path, [DOCUMENTS[:cut], DOCUMENTS[cut:]], tokenizer, kind)
    ids = {
        word: tokenizer.backend.token_to_id(word)
        for word in ["good", "film", "bad", "the", "a", "in"]
    }
    # Sentences and documents without a token are left out.
    first = [[ids["good"], ids["film"]], [ids["bad"]]]
    assert contents(opened) == [first, [[ids["the"]]], first, [[ids["a"]], [ids["in"]]]]
    starts = np.array([3, 0, 4, 6, 2, 8])
    lengths = np.array([1, 2, 0, 2, 1, 1])
    each = [opened.tokens(a, a + n).tolist() for a, n in zip(starts, lengths, strict=True)]
    assert opened.gather(starts, lengths).tolist() == [token for one in each for token in one]
    assert len(each[3]) == 2 and opened.gather(starts[:0], lengths[:0]).tolist() == []
    assert opened.digests[0] == opened.digests[2] and len(set(opened.digests.tolist())) == 3
    assert opened.occurrences.tolist() == [0, 0, 1, 0]


def test_long_input_is_tokenized_in_blocks(tokenizer, tmp_path, monkeypatch):
    whole = write_store(tmp_path / "a", [DOCUMENTS], tokenizer)
    monkeypatch.setattr(store, "_LINES", 2)
    assert contents(write_store(tmp_path / "b", [DOCUMENTS], tokenizer)) == contents(whole)
    monkeypatch.setattr(store, "_CHARACTERS", 1)
    assert contents(write_store(tmp_path / "c", [DOCUMENTS], tokenizer)) == contents(whole)
    assert len(list(store._blocks(iter(["a", "b", "c"])))) == 3


def test_released_pages_are_read_again(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_RELEASED_BYTES", 0)
    opened = write_store(tmp_path, [DOCUMENTS], tokenizer)
    before = contents(opened)
    opened.release()
    assert contents(opened) == before


def test_a_digest_tells_where_sentences_end(tokenizer, tmp_path):
    opened = write_store(tmp_path, [[["good", "film"], ["goodfilm"]]], tokenizer)
    assert len(set(opened.digests.tolist())) == 2


class Digests:
    def __init__(self, *digests):
        self.digests = np.array(digests, np.uint64)


def test_documents_with_the_smallest_digests_are_held_out_and_equal_ones_stay_together(tmp_path):
    made = Digests(9, 1, 5, 1, 2**64 - 1, 7, 2, 9)
    found = splits.divide(tmp_path, made, 0.3, 2, True)
    assert found == splits.read_splits(tmp_path)
    assert splits.shard_documents(made, found["heldout"], 0).tolist() == [1, 3, 6]
    assert np.fromfile(splits.documents_path(tmp_path, "heldout"), "<i8").tolist() == [1, 3, 6]
    shards = [splits.shard_documents(made, found["train"], one).tolist() for one in (0, 1)]
    assert shards == [[2, 5], [0, 4, 7]]
    assert np.fromfile(splits.documents_path(tmp_path, "train"), "<i8").tolist() == [0, 2, 4, 5, 7]
    assert found["train"].documents == 5 and found["heldout"].documents == 3


def test_no_shard_is_empty(tmp_path):
    made = Digests(3, 1, 2, 3)
    found = splits.divide(tmp_path, made, 0.0, 16, True)
    assert found["train"].num_shards == 3 and set(found) == {"train"}
    shards = [splits.shard_documents(made, found["train"], one).tolist() for one in range(3)]
    assert shards == [[1], [2], [0, 3]]


def test_a_store_of_many_parts_opens_few_files(tokenizer, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened_now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened_now + 20, limits[1]))
    try:
        opened = write_store(tmp_path, [[["good"], ["film"]]] * 60, tokenizer)
        assert len(contents(opened)) == 120
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not list(tmp_path.glob("*.tokens"))


def test_a_merge_that_was_killed_is_done_again(tokenizer, tmp_path, monkeypatch):
    whole = contents(write_store(tmp_path / "whole", [DOCUMENTS, DOCUMENTS], tokenizer))

    def killed(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store.files, "write_json", killed)
        write_store(tmp_path / "made", [DOCUMENTS, DOCUMENTS], tokenizer)
    store.merge_parts(tmp_path / "made", 2, np.dtype("<u2"))
    assert contents(store.Store(tmp_path / "made")) == whole
