"""The tokenizer of a model: text to ids, by the Rust `tokenizers` of the Hugging Face folder.

One class for every family (WordPiece, unigram, BPE). What decides ids is in its fingerprint, so
records, teacher and student can be compared before anything is computed.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from xdistil_tf import files
from xdistil_tf.data import windows
from xdistil_tf.data.windows import Window

_KINDS = {"WordPiece": "wordpiece", "Unigram": "unigram", "BPE": "bpe"}
SPECIAL_TOKENS = {
    "cls_token": ("[CLS]", "<s>", "<cls>"),
    "sep_token": ("[SEP]", "</s>", "<sep>"),
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>", "<|endoftext|>"),
    "mask_token": ("[MASK]", "<mask>"),
}
_UNLIMITED = 10**9


@dataclasses.dataclass(frozen=True, slots=True)
class Encoding:
    """One tokenized example: lists of T entries, special tokens included, no padding.

    `word_index` is the word of each piece, -1 for special tokens (of a pair it starts again at 0
    with the second text); `truncated` says whether pieces were cut off.
    """

    input_ids: list[int]
    segment_ids: list[int]
    word_index: list[int]
    truncated: bool


@dataclasses.dataclass(frozen=True, slots=True)
class WordWindow:
    """A window of a sentence, and which of its words count there."""

    encoding: Encoding
    words: Window


@dataclasses.dataclass(frozen=True, slots=True)
class _Frame:
    """The special tokens around a single text, and the segments."""

    before: list[int]
    after: list[int]
    before_segments: list[int]
    after_segments: list[int]
    segment: int

    def around(
        self, ids: Sequence[int], words: Sequence[int], window: Window, truncated: bool
    ) -> WordWindow:
        encoding = Encoding(
            [*self.before, *ids, *self.after],
            [*self.before_segments, *[self.segment] * len(ids), *self.after_segments],
            [*[-1] * len(self.before), *words, *[-1] * len(self.after)],
            truncated,
        )
        return WordWindow(encoding, window)


class Tokenizer:
    """The tokenizer of a model folder. Make one with `load_tokenizer`.

    Attributes:
      kind: `wordpiece`, `unigram` or `bpe`.
      vocab_size: The highest id plus one: the rows an embedding table needs.
      tokens: The token of each id; empty for ids that are not used.
      do_lower_case: Whether text is lower-cased.
      cls_id, sep_id, pad_id, unk_id, mask_id: Ids of the special tokens, None where there is none.
      uses_segments: Whether the second text of a pair gets segment 1.
      model_max_length: What the folder says, or None.
      fingerprint: SHA-256 over everything that decides ids.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str],
        config: Mapping[str, Any] | None = None,
    ):
        backend.no_truncation()
        backend.no_padding()  # Published folders often carry a fixed padding to 128.
        self._backend = backend
        self._config = dict(config or {})
        self._state = json.loads(backend.to_str())
        self.kind = _KINDS.get(self._state["model"]["type"], "other")
        by_token = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(by_token.values()) + 1
        self.tokens = [""] * self.vocab_size
        for token, token_id in by_token.items():
            self.tokens[token_id] = token
        self.special_tokens = {
            name: token for name, token in special_tokens.items() if token in by_token
        }
        self.cls_id, self.sep_id, self.pad_id, self.unk_id, self.mask_id = (
            by_token.get(self.special_tokens.get(name, "")) for name in SPECIAL_TOKENS
        )
        self.do_lower_case = _lower_cases(self._state["normalizer"])
        limit = self._config.get("model_max_length")
        self.model_max_length = int(limit) if limit and limit < _UNLIMITED else None
        self.uses_segments = 1 in backend.encode("a", "b").type_ids

    @functools.cached_property
    def fingerprint(self) -> str:
        state = copy.deepcopy(self._state)
        model = state["model"]
        if self.kind != "unigram":  # The scores of a unigram model decide ids too.
            model.pop("vocab")
        normalizer = state["normalizer"]
        if normalizer and normalizer["type"] == "BertNormalizer":
            if normalizer["strip_accents"] is None:
                normalizer["strip_accents"] = normalizer["lowercase"]
        return files.fingerprint(
            {
                "tokens": self.tokens,
                "special": [getattr(self, name) for name in _SPECIAL_IDS],
                "normalizer": normalizer,
                "pre_tokenizer": state["pre_tokenizer"],
                "model": model,
                "uses_segments": self.uses_segments,
            }
        )

    @property
    def normalizer(self) -> dict[str, Any] | None:
        """The normaliser as `tokenizer.json` describes it."""
        return copy.deepcopy(self._state["normalizer"])

    @property
    def pre_tokenizer(self) -> dict[str, Any] | None:
        """The splitting into words as `tokenizer.json` describes it."""
        return copy.deepcopy(self._state["pre_tokenizer"])

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The Rust tokenizer, without truncation and padding."""
        self._backend.no_truncation()
        return self._backend

    def encode_batch(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None, max_length: int = 128
    ) -> list[Encoding]:
        """Tokenizes texts or pairs on all cores; pairs lose pieces as `kept_lengths` says.

        Before: `["hello world"]`. After: `[Encoding([101, 7592, 2088, 102], [0, 0, 0, 0], ...)]`.

        Raises:
          ValueError: If `max_length` leaves no room for text, or the numbers of texts differ.
        """
        if texts_b is not None and len(texts) != len(texts_b):
            raise ValueError(
                f"Expected as many texts_b as texts ({len(texts)}). Received: {len(texts_b)}."
            )
        if texts_b is None:
            self._truncate(self._backend, max_length)
            return [_encoding(one) for one in self._backend.encode_batch(list(texts))]
        _check_room(self._backend, max_length, pair=True)
        inputs = list(zip(texts, texts_b, strict=True))
        return [_cut_pair(one, max_length) for one in self.backend.encode_batch(inputs)]

    def encode_windows(
        self, sentences: Sequence[Sequence[str]], max_length: int = 128
    ) -> list[list[WordWindow]]:
        """Tokenizes sentences that are already split; long ones in several windows.

        `word_index` counts the words of the sentence. A word that nothing is left of (control
        characters only) is one unknown piece; of one that no window takes whole, its first pieces
        stay.
        """
        backend = self._word_backend
        _check_room(backend, max_length, pair=False)
        backend.no_truncation()
        inputs = [list(words) for words in sentences]
        encoded = backend.encode_batch(inputs, is_pretokenized=True, add_special_tokens=False)
        frame = self._frame
        room = max_length - len(frame.before) - len(frame.after)
        return [
            self._windows(one, len(words), room, frame)
            for one, words in zip(encoded, inputs, strict=True)
        ]

    def _windows(
        self, encoded: tokenizers.Encoding, count: int, room: int, frame: _Frame
    ) -> list[WordWindow]:
        ids, words = encoded.ids, encoded.word_ids
        if len(ids) <= room and len(set(words)) == count:
            return [frame.around(ids, words, Window(0, count, 0, count), False)]
        pieces: list[list[int]] = [[] for _ in range(count)]
        for token, word in zip(ids, words, strict=True):
            pieces[word].append(token)
        pieces = [one or [self.blank_id] for one in pieces]
        truncated = any(len(one) > room for one in pieces)
        pieces = [one[:room] for one in pieces]
        made = []
        for window in windows.cut([len(one) for one in pieces], room):
            own = range(window.first, window.stop)
            ids = [token for word in own for token in pieces[word]]
            words = [word for word in own for _ in pieces[word]]
            made.append(frame.around(ids, words, window, truncated))
        return made

    @property
    def blank_id(self) -> int:
        """The piece of a word that nothing is left of."""
        return next((one for one in (self.unk_id, self.mask_id, self.sep_id) if one is not None), 0)

    @functools.cached_property
    def _frame(self) -> _Frame:
        """The special tokens of a single text."""
        one = self._word_backend.encode(["a"], is_pretokenized=True)
        inside = [place for place, special in enumerate(one.special_tokens_mask) if not special]
        first, stop = inside[0], inside[-1] + 1
        return _Frame(
            one.ids[:first], one.ids[stop:], one.type_ids[:first], one.type_ids[stop:],
            one.type_ids[first],
        )  # fmt: skip

    def save(self, folder: files.Path) -> None:
        """Writes the files with which this library and `AutoTokenizer` load it again."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with files.replaced_file(folder / "tokenizer.json", "w") as handle:
            handle.write(self.backend.to_str(pretty=True))
        files.write_json(folder / "tokenizer_config.json", self._saved_config())
        files.write_json(folder / "special_tokens_map.json", self.special_tokens)
        if self.kind == "wordpiece":
            with files.replaced_file(folder / "vocab.txt", "w") as handle:
                handle.writelines(token + "\n" for token in self.tokens)

    def _saved_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "tokenizer_class": self._config.get("tokenizer_class")
            or ("BertTokenizer" if self.kind == "wordpiece" else "PreTrainedTokenizerFast"),
            "model_max_length": self.model_max_length or int(1e30),
            **self.special_tokens,
        }
        normalizer = self._state["normalizer"]
        if normalizer and normalizer["type"] == "BertNormalizer":
            config["do_lower_case"] = normalizer["lowercase"]
            config["strip_accents"] = normalizer["strip_accents"]
            config["tokenize_chinese_chars"] = normalizer["handle_chinese_chars"]
        return config

    @functools.cached_property
    def _word_backend(self) -> tokenizers.Tokenizer:
        """Byte-level BPE sees given words as it would see them in running text: after a space."""
        before = self._state["pre_tokenizer"]
        if not before or before["type"] != "ByteLevel" or before["add_prefix_space"]:
            return self._backend
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        return backend

    def _truncate(self, backend: tokenizers.Tokenizer, max_length: int) -> None:
        _check_room(backend, max_length, pair=False)
        backend.enable_truncation(max_length)


_SPECIAL_IDS = ("cls_id", "sep_id", "pad_id", "unk_id", "mask_id")


def kept_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """Pieces that the texts of a pair keep: the longer one loses its last, of equals the second.

    BERT's rule. The `tokenizers` library gives the second text the odd piece.

    >>> kept_lengths(5, 5, 7), kept_lengths(9, 2, 7), kept_lengths(2, 3, 7)
    ((4, 3), (5, 2), (2, 3))
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    if 2 * shorter > room:
        return room - room // 2, room // 2
    return (shorter, room - shorter) if first < second else (room - shorter, shorter)


def check_same_vocabulary(a: Tokenizer, b: Tokenizer, limit: int = 3) -> list[str]:
    """Compares two tokenizers id by id.

    Returns:
      Up to `limit` differences in words, the first ones first; empty if both give equal ids.
    """
    found = []
    if a.vocab_size != b.vocab_size:
        found.append(f"vocab_size: {a.vocab_size} and {b.vocab_size}")
    for token_id, (one, other) in enumerate(zip(a.tokens, b.tokens, strict=False)):
        if one != other:
            found.append(f"id {token_id}: {one!r} and {other!r}")
        if len(found) >= limit:
            return found
    for name in (*_SPECIAL_IDS, "kind", "do_lower_case", "uses_segments"):
        if getattr(a, name) != getattr(b, name):
            found.append(f"{name}: {getattr(a, name)} and {getattr(b, name)}")
    if not found and a.fingerprint != b.fingerprint:
        found.append("the normaliser, the splitting into words or the merges differ")
    return found[:limit]


def _lower_cases(normalizer: Mapping[str, Any] | None) -> bool:
    if not normalizer:
        return False
    if normalizer["type"] == "Sequence":
        return any(_lower_cases(one) for one in normalizer["normalizers"])
    return normalizer["type"] == "Lowercase" or bool(normalizer.get("lowercase", False))


def _check_room(backend: tokenizers.Tokenizer, max_length: int, pair: bool) -> None:
    special = backend.num_special_tokens_to_add(pair)
    if max_length <= special:
        raise ValueError(
            f"Expected max_length above the {special} special tokens of "
            f"{'a pair' if pair else 'a text'}. Received: max_length={max_length}."
        )


def _cut_pair(one: tokenizers.Encoding, max_length: int) -> Encoding:
    """A pair without the last pieces of its texts, as far as there is no room for them."""
    if len(one.ids) <= max_length:
        return _encoding(one)
    texts = one.sequence_ids  # None for special tokens.
    lengths = [texts.count(0), texts.count(1)]
    left = list(kept_lengths(*lengths, max_length - (len(texts) - sum(lengths))))
    kept = []
    for place, text in enumerate(texts):
        if text is not None:
            left[text] -= 1
            if left[text] < 0:
                continue
        kept.append(place)
    ids, types, words = (
        [values[place] for place in kept] for values in (one.ids, one.type_ids, _words_of(one))
    )
    return Encoding(ids, types, words, True)


def _words_of(one: tokenizers.Encoding) -> list[int]:
    return [-1 if word is None else word for word in one.word_ids]


def _encoding(one: tokenizers.Encoding) -> Encoding:
    return Encoding(one.ids, one.type_ids, _words_of(one), bool(one.overflowing))
