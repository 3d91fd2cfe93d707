"""Tokenizers: text to the ids a model reads, by the Rust `tokenizers` of the Hugging Face folder.

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
from absl import logging
from tokenizers import models, normalizers, pre_tokenizers, processors

from xdistil_tf import files, model_places
from xdistil_tf.data import windows
from xdistil_tf.data.windows import Window

Path = str | pathlib.Path

_KINDS = {"WordPiece": "wordpiece", "Unigram": "unigram", "BPE": "bpe"}
_SPECIAL = {
    "cls_token": ("[CLS]", "<s>", "<cls>"),
    "sep_token": ("[SEP]", "</s>", "<sep>"),
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>", "<|endoftext|>"),
    "mask_token": ("[MASK]", "<mask>"),
}
_WORDPIECE_CLASSES = ("Bert", "Electra", "DistilBert", "MobileBert", "Funnel", "MPNet", "Convbert")
_UNLIMITED = 10**9
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")


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
            by_token.get(self.special_tokens.get(name, "")) for name in _SPECIAL
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

    def save(self, folder: Path) -> None:
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


def find_tokenizer(path: str) -> str:
    """Where the tokenizer is that a flag means: a vocabulary file, or a folder with a model."""
    folder = pathlib.Path(path)
    if folder.is_file():
        return path
    for candidate in model_places.candidates(folder):
        if has_tokenizer(candidate):
            return str(candidate)
    return path


def has_tokenizer(folder: Path) -> bool:
    """Whether a model folder holds a tokenizer."""
    return any((pathlib.Path(folder) / name).is_file() for name in _FILES)


def load_tokenizer(path: Path, do_lower_case: bool | None = None) -> Tokenizer:
    """Loads a tokenizer.

    Args:
      path: A Hugging Face folder, a `vocab.txt`, a folder with one (Google's checkpoints), or a
        hub name.
      do_lower_case: For a bare WordPiece vocabulary; None infers it from the vocabulary.

    Raises:
      FileNotFoundError: If nothing of that name can be loaded.
      ValueError: If the case cannot be inferred, or contradicts the folder.
    """
    place = pathlib.Path(path)
    if place.is_file() and place.name == "tokenizer.json":
        place = place.parent
    if place.is_file():
        loaded = _from_vocabulary(place, {}, do_lower_case)
    elif place.is_dir():
        loaded = _from_folder(place, do_lower_case)
    else:
        loaded = _from_transformers(path)
    if do_lower_case is not None and loaded.kind == "wordpiece":
        if loaded.do_lower_case != do_lower_case:
            raise ValueError(
                f"The tokenizer {path} has do_lower_case={loaded.do_lower_case}. "
                f"Received: do_lower_case={do_lower_case}. Leave the option out."
            )
    return loaded


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


def _from_folder(folder: pathlib.Path, do_lower_case: bool | None) -> Tokenizer:
    config = _read_json(folder / "tokenizer_config.json")
    special = {**_read_json(folder / "special_tokens_map.json"), **config}
    if (folder / "tokenizer.json").is_file():
        try:
            backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # The Rust side raises plain Exception.
            raise ValueError(f"{folder / 'tokenizer.json'} is damaged: {error}") from error
        _apply_config(backend, config)
        return Tokenizer(backend, _named_special(special, backend), config)
    tokenizer_class = str(config.get("tokenizer_class") or "Bert")
    if (folder / "vocab.txt").is_file() and tokenizer_class.startswith(_WORDPIECE_CLASSES):
        return _from_vocabulary(folder / "vocab.txt", {**special}, do_lower_case)
    return _from_transformers(folder)


def _apply_config(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """`transformers` lets tokenizer_config.json override the normaliser of tokenizer.json."""
    normalizer = json.loads(backend.to_str())["normalizer"]
    if not normalizer or normalizer["type"] != "BertNormalizer":
        return
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=normalizer["clean_text"],
        handle_chinese_chars=config.get(
            "tokenize_chinese_chars", normalizer["handle_chinese_chars"]
        ),
        strip_accents=config.get("strip_accents", normalizer["strip_accents"]),
        lowercase=config.get("do_lower_case", normalizer["lowercase"]),
    )


def _from_vocabulary(
    path: pathlib.Path, config: Mapping[str, Any], do_lower_case: bool | None
) -> Tokenizer:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a vocabulary in UTF-8. Received: {error}.") from error
    if lines and not lines[-1]:
        lines.pop()
    pieces = [line.rstrip("\r") for line in lines]
    vocabulary = {piece: token_id for token_id, piece in enumerate(pieces)}
    _warn_of_duplicates(path, pieces, vocabulary)
    if do_lower_case is None:
        do_lower_case = config.get("do_lower_case")
    if do_lower_case is None:
        do_lower_case = _infer_lower_case(vocabulary, path)
    names = {
        name: _content(config.get(name))
        or next((usual for usual in usuals if usual in vocabulary), "")
        for name, usuals in _SPECIAL.items()
    }
    for name in ("cls_token", "sep_token", "pad_token", "unk_token"):
        if names[name] not in vocabulary:
            raise ValueError(
                f"{path}: expected a WordPiece vocabulary, one token a line, with "
                f"{_SPECIAL[name][0]}. It has {len(vocabulary)} lines and no {name}."
            )
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=bool(do_lower_case),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = names["cls_token"], names["sep_token"]
    backend.post_processor = processors.BertProcessing(
        (sep, vocabulary[sep]), (cls, vocabulary[cls])
    )
    backend.add_special_tokens([name for name in names.values() if name in vocabulary])
    return Tokenizer(backend, names, config)


def _warn_of_duplicates(
    path: pathlib.Path, pieces: Sequence[str], vocabulary: Mapping[str, int]
) -> None:
    """Of a piece that stands twice the last id is used, as everywhere; empty lines are holes."""
    unused = [i for i, piece in enumerate(pieces) if piece and vocabulary[piece] != i]
    if unused:
        piece = pieces[unused[0]]
        logging.warning(
            "%s line %d: the piece %r stands again in line %d, and only that id is used; "
            "%d such lines in all.",
            path, unused[0] + 1, piece, vocabulary[piece] + 1, len(unused),
        )  # fmt: skip


def _infer_lower_case(vocabulary: Mapping[str, int], path: pathlib.Path) -> bool:
    words = [token for token in vocabulary if not token.startswith(("[", "<"))]
    cased = [word for word in words if word.lower() != word.upper()]
    upper = sum(word != word.lower() for word in cased)
    if len(cased) >= 100 and upper <= len(cased) // 1000:
        return True
    if upper > len(cased) // 20:
        return False
    raise ValueError(
        f"Cannot tell whether {path} is a lower-cased vocabulary ({upper} of {len(cased)} tokens "
        "with letters have capitals). Set do_lower_case."
    )


def _from_transformers(name: Path) -> Tokenizer:
    import transformers

    try:
        loaded = transformers.AutoTokenizer.from_pretrained(str(name), use_fast=True)
        backend = tokenizers.Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError, ImportError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        if pathlib.Path(name).is_dir():
            reason = "it has neither tokenizer.json nor vocab.txt that can be read"
        raise FileNotFoundError(
            f"No tokenizer could be loaded from {name}. Expected a Hugging Face folder, a "
            f"vocab.txt or a hub name that can be reached. Reason: {reason}"
        ) from error
    special = {key: getattr(loaded, key, None) or "" for key in _SPECIAL}
    config = {
        "model_max_length": loaded.model_max_length,
        "tokenizer_class": type(loaded).__name__.removesuffix("Fast"),
    }
    return Tokenizer(backend, special, config)


def _named_special(config: Mapping[str, Any], backend: tokenizers.Tokenizer) -> dict[str, str]:
    return {
        name: _content(config.get(name))
        or next((usual for usual in usuals if backend.token_to_id(usual) is not None), "")
        for name, usuals in _SPECIAL.items()
    }


def _content(token: Any) -> str:
    """Special tokens stand in the files as a string or as an object with `content`."""
    return token.get("content", "") if isinstance(token, dict) else token or ""


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


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    return files.read_json(path) if path.is_file() else {}
