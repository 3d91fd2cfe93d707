import json

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer, check_same_vocabulary, kept_lengths


def tokens_of(tokenizer, encoding):
    return [tokenizer.tokens[one] for one in encoding.input_ids]


def test_encodes_a_text_with_special_tokens(tokenizer):
    (one,) = tokenizer.encode_batch(["The films"])
    assert tokens_of(tokenizer, one) == ["[CLS]", "the", "film", "##s", "[SEP]"]
    assert one.segment_ids == [0] * 5
    assert one.word_index == [-1, 0, 1, 1, -1]
    assert not one.truncated


def test_truncates_the_longer_text_of_a_pair(tokenizer):
    (one,) = tokenizer.encode_batch(["a a a a a"], ["good bad"], max_length=7)
    assert tokens_of(tokenizer, one) == ["[CLS]", "a", "a", "[SEP]", "good", "bad", "[SEP]"]
    assert one.segment_ids == [0, 0, 0, 0, 1, 1, 1]
    assert one.truncated


def popped(first, second, room):
    """BERT's loop."""
    while first + second > room:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return first, second


def test_pairs_lose_pieces_as_in_berts_code(tokenizer):
    for first in range(12):
        for second in range(12):
            for room in (1, 4, 7, 8, 30):
                assert kept_lengths(first, second, room) == popped(first, second, room)
    texts, texts_b = ["a " * 5, "a " * 9], ["good " * 5, "good bad"]
    ones = tokenizer.encode_batch(texts, texts_b, max_length=10)
    kept = [(one.segment_ids.count(0) - 2, one.segment_ids.count(1) - 1) for one in ones]
    assert kept == [(4, 3), (5, 2)] and all(one.truncated for one in ones)
    assert ones[0].word_index == [-1, 0, 1, 2, 3, -1, 0, 1, 2, -1]


def test_word_index_counts_the_given_words(tokenizer):
    ((one,),) = tokenizer.encode_windows([["films", "U.S.", "badly"]])
    assert one.encoding.word_index == [-1, 0, 0, 1, 1, 1, 1, 2, 2, -1]


def test_a_word_that_nothing_is_left_of_is_one_unknown_piece(tokenizer):
    ((one,),) = tokenizer.encode_windows([["good", "\u200e", "bad"]])
    assert one.encoding.word_index == [-1, 0, 1, 2, -1]
    assert one.encoding.input_ids[2] == tokenizer.unk_id


def test_a_long_sentence_becomes_windows_between_special_tokens(tokenizer):
    words = ["a", "films", "good", "badly", "the", "films", "in"]
    (made,) = tokenizer.encode_windows([words], max_length=8)
    assert [one.encoding.word_index for one in made] == [
        [-1, 0, 1, 1, 2, 3, 3, -1],
        [-1, 4, 5, 5, 6, -1],
    ]
    assert [(one.words.own_first, one.words.own_stop) for one in made] == [(0, 4), (4, 7)]
    for one in made:
        ids = one.encoding.input_ids
        assert (ids[0], ids[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
        assert one.encoding.segment_ids == [0] * len(ids)
        assert not one.encoding.truncated


def test_a_word_that_no_window_takes_keeps_its_first_pieces(tokenizer):
    ((first, second),) = tokenizer.encode_windows([["x" * 9, "good"]], max_length=6)
    assert first.encoding.word_index == [-1, 0, 0, 0, 0, -1]
    assert second.encoding.word_index == [-1, 1, -1]
    assert first.encoding.truncated


def test_a_limit_without_room_for_text_is_refused(tokenizer):
    with pytest.raises(ValueError, match="max_length above the 3 special tokens of a pair"):
        tokenizer.encode_batch(["a"], ["b"], max_length=3)


def test_uneven_pairs_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"as many texts_b as texts \(2\). Received: 1"):
        tokenizer.encode_batch(["a", "b"], ["c"])


def test_saved_folder_gives_equal_ids_here_and_in_transformers(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert check_same_vocabulary(again, tokenizer) == []
    texts = ["Góód films, in Paris?", "the [MASK] x-y"]
    ours = [one.input_ids for one in again.encode_batch(texts)]
    assert ours == theirs(texts)["input_ids"]
    assert theirs.pad_token_id == tokenizer.pad_id == 0


def test_fixed_padding_and_truncation_of_a_published_folder_are_ignored(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    backend.enable_padding(length=16)
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    (one,) = load_tokenizer(tmp_path).encode_batch(["a a a a a"])
    assert len(one.input_ids) == 7


def test_the_config_beside_tokenizer_json_decides_the_case(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": False}))
    cased = load_tokenizer(tmp_path)
    assert not cased.do_lower_case
    assert check_same_vocabulary(cased, tokenizer) == ["do_lower_case: False and True"]
    with pytest.raises(ValueError, match="has do_lower_case=False. Received: do_lower_case=True"):
        load_tokenizer(tmp_path, do_lower_case=True)


def test_a_folder_with_vocab_txt_only_loads(vocabulary, tokenizer, tmp_path):
    (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes().replace(b"\n", b"\r\n"))
    assert load_tokenizer(tmp_path, do_lower_case=True).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("words", "expected"),
    [([f"w{n}x" for n in range(150)], True), ([f"W{n}x" for n in range(150)], False)],
)
def test_case_is_inferred_from_the_vocabulary(tmp_path, words, expected):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]), encoding="utf-8")
    assert load_tokenizer(path).do_lower_case is expected


def test_an_ambiguous_case_is_an_error_with_its_cure(vocabulary):
    with pytest.raises(ValueError, match=r"Cannot tell whether .* \(0 of \d+ .* Set do_lower_case"):
        load_tokenizer(vocabulary)


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path):
    path = tmp_path / "other.txt"
    path.write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a WordPiece vocabulary.*2 lines and no cls_token"):
        load_tokenizer(path, do_lower_case=True)


def test_a_missing_folder_is_an_error_with_its_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a Hugging Face folder"):
        load_tokenizer(tmp_path / "nothing")


def test_differences_are_listed_first_ones_first(tmp_path, vocabulary, tokenizer):
    lines = vocabulary.read_text(encoding="utf-8").split("\n")
    lines[5], lines[6] = lines[6], lines[5]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    other = load_tokenizer(path, do_lower_case=True)
    assert check_same_vocabulary(tokenizer, other) == [
        "id 5: 'good' and 'bad'",
        "id 6: 'bad' and 'good'",
    ]
    assert other.fingerprint != tokenizer.fingerprint


def test_byte_level_words_are_read_as_after_a_space():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe = Tokenizer(backend, {"cls_token": "<s>", "sep_token": "</s>"})
    ((window,),) = bpe.encode_windows([["a", "b"]], max_length=8)
    one = window.encoding
    assert bpe.kind == "bpe"
    assert [bpe.tokens[token] for token in one.input_ids] == ["Ġ", "a", "Ġ", "b"]
    assert one.word_index == [0, 0, 1, 1]


def test_a_unigram_folder_round_trips(tmp_path):
    transformers = pytest.importorskip("transformers")
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("\u2581good", -1.0), ("\u2581", -2.0), ("film", -2.0), ("s", -3.0)]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B:0 </s>:0",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )  # fmt: skip
    special = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    unigram = Tokenizer(backend, special)
    ((window,),) = unigram.encode_windows([["good", "films"]])
    one = window.encoding
    assert [unigram.tokens[token] for token in one.input_ids] == [
        "<s>", "\u2581good", "\u2581", "film", "s", "</s>",
    ]  # fmt: skip
    assert one.word_index == [-1, 0, 1, 1, 1, -1]
    assert unigram.kind == "unigram" and not unigram.uses_segments and unigram.pad_id == 1
    unigram.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == unigram.fingerprint
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("good films")["input_ids"] == one.input_ids


def test_a_folder_with_vocabulary_and_merges_loads(tmp_path):
    pytest.importorskip("transformers")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet, "go"]
    (tmp_path / "vocab.json").write_text(json.dumps({one: n for n, one in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\ng o\n")
    config = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = load_tokenizer(tmp_path)
    (one,) = loaded.encode_batch(["go"], ["o"])
    assert [loaded.tokens[token] for token in one.input_ids] == [
        "<s>", "go", "</s>", "</s>", "o", "</s>",
    ]  # fmt: skip
    assert (loaded.kind, loaded.cls_id, loaded.model_max_length) == ("bpe", 0, 512)
    loaded.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").fingerprint == loaded.fingerprint


def test_a_piece_that_stands_twice_is_warned_of(tmp_path, caplog):
    """The last id counts, as `transformers` reads it; empty lines are unused ids."""
    path = tmp_path / "vocab.txt"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "film", "", "", "good"]
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    load_tokenizer(path, do_lower_case=True)
    assert caplog.text == ""
    path.write_text("\n".join([*pieces, "film"]) + "\n", encoding="utf-8")
    loaded = load_tokenizer(path, do_lower_case=True)
    assert loaded.encode_batch(["film"])[0].input_ids[1] == 8
    (record,) = caplog.records
    assert "vocab.txt line 5: the piece 'film' stands again in line 9" in record.getMessage()
