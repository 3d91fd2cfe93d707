"""A vocabulary of whole words, made from the texts that a student is to learn from.

It is a WordPiece vocabulary without continuations: what is no word of it is the unknown token. So
everything that takes a tokenizer takes it, the graph of a SavedModel too.
"""

from __future__ import annotations

import collections
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from absl import logging
from tokenizers import normalizers, pre_tokenizers

from xdistil_tf import files
from xdistil_tf.data import readers, task_records
from xdistil_tf.data.features import MASK_TOKEN
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK_TOKEN)
_CONTINUATION = "##"
_FORMAT = 1


def count_words(texts: Iterable[str], lower_case: bool = True) -> collections.Counter[str]:
    """How often each word occurs, words being what BERT splits a text into before pieces.

    >>> sorted(count_words(["A film, [MASK] film"]).items())
    [(',', 1), ('a', 1), ('film', 2)]
    """
    normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        normal = normalizer.normalize_str(text.replace(MASK_TOKEN, " "))
        counts.update(word for word, _ in split(normal))
    return counts


def holds_whole_words(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer has a vocabulary of this kind."""
    return tokenizer.kind == "wordpiece" and not any(
        token.startswith(_CONTINUATION) for token in tokenizer.tokens
    )


def make_task_vocabulary(
    task_dir: files.Path,
    task: str,
    folder: files.Path,
    options: task_records.Options,
    transfer_file: Sequence[str] | None = None,
    augmented: Sequence[str] | None = None,
    min_count: int = 1,
    max_words: int | None = None,
    lower_case: bool = True,
) -> Tokenizer:
    """Writes a tokenizer of the words of train, transfer and augmented texts, unless it is there.

    Args:
      task_dir, task, transfer_file, augmented: As `create_task_records` takes them.
      folder: Where to; `vocabulary.json` is written last.
      options: How files are read.
      min_count: Words that occur less often are unknown.
      max_words: The most frequent ones, if there are more; `None`: all.
      lower_case: Whether capitals count as small letters.

    Raises:
      FileNotFoundError, ValueError: As the readers; if no word is left.
    """
    folder = pathlib.Path(folder)
    made_from = {
        "format": _FORMAT,
        "task": readers.task_name(task),
        "files": task_records.training_fingerprints(task_dir, transfer_file, augmented),
        "min_count": min_count,
        "max_words": max_words,
        "lower_case": lower_case,
        "languages": list(options.languages),
    }
    about = folder / "vocabulary.json"
    if about.is_file() and files.read_json(about)["made_from"] == made_from:
        return load_tokenizer(folder)
    texts = _texts(task_dir, task, options, transfer_file, augmented)
    counts = count_words(texts, lower_case)
    words = [(-count, word) for word, count in counts.items() if count >= min_count]
    kept = [word for _, word in sorted(words)[:max_words]]
    if not kept:
        raise ValueError(
            f"No word of {task_dir} occurs {min_count} times. Expected a lower words.min_count."
        )
    covered = sum(counts[word] for word in kept) / counts.total()
    about.unlink(missing_ok=True)
    with files.replaced_file(folder / "vocab.txt", "w") as handle:
        handle.writelines(word + "\n" for word in (*SPECIAL, *kept))
    tokenizer = load_tokenizer(folder / "vocab.txt", lower_case)
    tokenizer.save(folder)
    content = {"made_from": made_from, "words": len(kept), "covered": round(covered, 6)}
    files.write_json(about, content)
    logging.info(
        "The student reads %d words, which are %.2f%% of its texts.", len(kept), 100 * covered
    )
    return tokenizer


def _texts(
    task_dir: files.Path,
    task: str,
    options: task_records.Options,
    transfer_file: Sequence[str] | None,
    augmented: Sequence[str] | None,
) -> Iterable[str]:
    """All texts that the student may learn from; held-out ones of train are among them."""
    columns, bad = options.columns, options.max_bad_rows
    data = readers.read_task(task_dir, task, columns, bad, options.languages)
    groups: list[Iterable[Any]] = [data.splits["train"]]
    if transfer_file:
        given, _ = readers.read_transfer(
            transfer_file, data.pair, task, columns, bad, options.languages
        )
        groups.append(given)
    if augmented:
        groups.append(readers.read_augmented(augmented, data, bad))
    for one in itertools.chain(*groups):
        yield one.text if isinstance(one.text, str) else " ".join(one.text)
        if one.text_b is not None:
            yield one.text_b
