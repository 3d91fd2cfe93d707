"""Where tokenizers come from: a Hugging Face folder, a vocabulary file, or the hub."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from absl import logging
from tokenizers import models, normalizers, pre_tokenizers, processors

from xdistil_tf import files, model_places
from xdistil_tf.data.tokenizer import SPECIAL_TOKENS, Tokenizer

_WORDPIECE_CLASSES = ("Bert", "Electra", "DistilBert", "MobileBert", "Funnel", "MPNet", "Convbert")
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")


def find_tokenizer(path: str) -> str:
    """Where the tokenizer is that a flag means: a vocabulary file, or a folder with a model."""
    folder = pathlib.Path(path)
    if folder.is_file():
        return path
    for candidate in model_places.candidates(folder):
        if has_tokenizer(candidate):
            return str(candidate)
    return path


def has_tokenizer(folder: files.Path) -> bool:
    """Whether a model folder holds a tokenizer."""
    return any((pathlib.Path(folder) / name).is_file() for name in _FILES)


def load_tokenizer(path: files.Path, do_lower_case: bool | None = None) -> Tokenizer:
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
        for name, usuals in SPECIAL_TOKENS.items()
    }
    for name in ("cls_token", "sep_token", "pad_token", "unk_token"):
        if names[name] not in vocabulary:
            raise ValueError(
                f"{path}: expected a WordPiece vocabulary, one token a line, with "
                f"{SPECIAL_TOKENS[name][0]}. It has {len(vocabulary)} lines and no {name}."
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


def _from_transformers(name: files.Path) -> Tokenizer:
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
    special = {key: getattr(loaded, key, None) or "" for key in SPECIAL_TOKENS}
    config = {
        "model_max_length": loaded.model_max_length,
        "tokenizer_class": type(loaded).__name__.removesuffix("Fast"),
    }
    return Tokenizer(backend, special, config)


def _named_special(config: Mapping[str, Any], backend: tokenizers.Tokenizer) -> dict[str, str]:
    return {
        name: _content(config.get(name))
        or next((usual for usual in usuals if backend.token_to_id(usual) is not None), "")
        for name, usuals in SPECIAL_TOKENS.items()
    }


def _content(token: Any) -> str:
    """Special tokens stand in the files as a string or as an object with `content`."""
    return token.get("content", "") if isinstance(token, dict) else token or ""


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    return files.read_json(path) if path.is_file() else {}
