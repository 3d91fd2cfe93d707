"""Seeded review-like text: a labelled task, scored pairs, and a corpus to pretrain on.

A sentence of `generate_task`, label `positive` (rows are `text<TAB>label`):

    although the velmo waiter seemed rather bland , everyone adored the duck

Opinions are told with several hundred words of either polarity, most of them rare and invented. A
small labelled set shows few of them, while in `generate_corpus` the words of one polarity keep each
other's company: whoever has read the corpus knows them. The label also depends on negation, on
contrast (what follows "but" wins) and on whose opinion it is about what, so that counting words is
not enough; 2 % of the labels are wrong on purpose.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from xdistil_tf import files
from xdistil_tf.data import rows, tokenization, tokenizer
from xdistil_tf.data.reviews import LABELS, Grammar

Path = str | pathlib.Path


def generate_task(
    folder: Path,
    task: str = "classification",
    num_train: int = 500,
    num_dev: int = 500,
    num_test: int = 500,
    num_transfer: int = 5000,
    num_classes: int = 2,
    seed: int = 0,
) -> None:
    """Writes a task folder: `train.tsv dev.tsv test.tsv labels.tsv transfer.txt`.

    Equal arguments give equal bytes. No text occurs twice, in one split or in two; every class has
    the same share before the noise.

    Args:
      folder: Made if missing; files of these names are replaced.
      task: `classification`, or `regression` for the scored pairs of `generate_pairs`.
      num_train, num_dev, num_test: Labelled texts.
      num_transfer: Unlabelled texts besides.
      num_classes: 2 opinions, 3 with `neutral`, or 8 topics.
      seed: Of the sentences; the language itself is always the same.

    Raises:
      ValueError: If `task`, `num_classes` or a number of texts is not possible.
    """
    sizes = _sizes(num_train, num_dev, num_test, num_transfer)
    if task == "regression":
        generate_pairs(folder, **sizes, seed=seed)
        return
    if task != "classification":
        raise ValueError(
            f"Unknown task. Expected 'classification' or 'regression'. Received: task={task!r}."
        )
    if num_classes not in LABELS:
        raise ValueError(f"Expected num_classes 2, 3 or 8. Received: num_classes={num_classes}.")
    grammar = Grammar(random.Random(f"task {seed}"))
    seen: set[str] = set()
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("test", "dev", "train", "transfer"):
        examples = list(_labelled(grammar, sizes[f"num_{split}"], num_classes, seen))
        if split == "transfer":
            _write_lines(folder / "transfer.txt", (text for text, _ in examples))
        else:
            _write_lines(folder / f"{split}.tsv", ("\t".join(example) for example in examples))
    _write_lines(folder / "labels.tsv", LABELS[num_classes])


def generate_pairs(
    folder: Path,
    num_train: int = 2000,
    num_dev: int = 500,
    num_test: int = 500,
    num_transfer: int = 5000,
    seed: int = 0,
) -> None:
    """Writes scored pairs: headed `train.tsv dev.tsv test.tsv`, and `transfer.txt` without scores.

    A row is `text_a<TAB>text_b<TAB>score`. Both texts tell a fact and an opinion about a thing; the
    score, 0 to 5 with one decimal, is 1 for the same topic, 1.5 for the same thing of it, 1.5 for
    the same opinion (mostly in other words) and 1 for the same fact, plus noise below 0.3.

    Raises:
      ValueError: If a number of texts is not possible.
    """
    sizes = _sizes(num_train, num_dev, num_test, num_transfer)
    grammar = Grammar(random.Random(f"pairs {seed}"))
    seen: set[str] = set()
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("test", "dev", "train", "transfer"):
        scored = [_scored_pair(grammar, seen) for _ in range(sizes[f"num_{split}"])]
        if split == "transfer":
            lines = ["text\ttext_b", *(f"{a}\t{b}" for a, b, _ in scored)]
            _write_lines(folder / "transfer.txt", lines)
        else:
            lines = ["text_a\ttext_b\tscore", *(f"{a}\t{b}\t{score:.1f}" for a, b, score in scored)]
            _write_lines(folder / f"{split}.tsv", lines)


def generate_corpus(path: Path, num_documents: int = 3000, seed: int = 0) -> None:
    """Writes documents of 4 to 10 sentences: one sentence a line, an empty line between documents.

    A document keeps to one topic and, in nine sentences of ten, to one opinion: this is what
    pretraining can learn from.

    Raises:
      ValueError: If `num_documents` is not positive.
    """
    if num_documents < 1:
        raise ValueError(
            f"Expected a positive num_documents. Received: num_documents={num_documents}."
        )
    grammar = Grammar(random.Random(f"corpus {seed}"))
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    documents = (grammar.document() for _ in range(num_documents))
    lines = itertools.chain.from_iterable(["", *document] for document in documents)
    _write_lines(path, itertools.islice(lines, 1, None))


def train_wordpiece(
    corpus_files: Path | Sequence[Path], vocab_size: int, folder: Path
) -> tokenizer.Tokenizer:
    """Trains an uncased BERT WordPiece tokenizer and saves it as a Hugging Face folder.

    Equal files give equal ids in every process. Every printable ASCII character is in the
    vocabulary, so that no ASCII text needs `[UNK]`.

    Args:
      corpus_files: Text files in UTF-8.
      vocab_size: At most so many tokens, `[PAD] [UNK] [CLS] [SEP] [MASK]` first.
      folder: Gets `tokenizer.json`, `vocab.txt` and the two files beside them.

    Raises:
      ValueError: If a line is not UTF-8, or `vocab_size` is smaller than the alphabet.
    """
    paths = [corpus_files] if isinstance(corpus_files, str | pathlib.Path) else corpus_files
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(_SPECIAL),
        initial_alphabet=[*_ASCII, *map(_marked, _ASCII)],
        show_progress=False,
    )
    # The library's own WordPiece trainer numbers its alphabet in hash order, anew in each process.
    # BPE merges are the same algorithm and are not; marked characters stand for "##" ones.
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.train_from_iterator(_marked_lines(paths), trainer)
    by_token = backend.get_vocab()
    vocabulary = [*_SPECIAL, *map(_unmarked, sorted(by_token, key=by_token.get))]
    if len(vocabulary) > vocab_size:
        raise ValueError(
            f"The alphabet of the corpus needs {len(vocabulary)} tokens. "
            f"Received: vocab_size={vocab_size}. Raise it."
        )
    with tempfile.TemporaryDirectory() as aside:
        path = pathlib.Path(aside) / "vocab.txt"
        _write_lines(path, vocabulary)
        tokenizer = tokenization.load_tokenizer(path, do_lower_case=True)
    tokenizer.save(folder)
    return tokenizer


def _labelled(
    grammar: Grammar, count: int, num_classes: int, seen: set[str]
) -> Iterator[tuple[str, str]]:
    labels = LABELS[num_classes]
    for label in grammar.balanced(count, labels):
        text = grammar.labelled(label)
        while text in seen:
            text = grammar.labelled(label)
        seen.add(text)
        yield text, grammar.noisy(label, labels)


def _scored_pair(grammar: Grammar, seen: set[str]) -> tuple[str, str, float]:
    while True:
        text_a, text_b, score = grammar.pair()
        if text_a != text_b and not seen & {text_a, text_b}:
            seen |= {text_a, text_b}
            return text_a, text_b, score


def _sizes(num_train: int, num_dev: int, num_test: int, num_transfer: int) -> dict[str, int]:
    sizes = {"num_train": num_train, "num_dev": num_dev, "num_test": num_test}
    for name, size in {**sizes, "num_transfer": num_transfer}.items():
        if size < (name != "num_transfer"):
            raise ValueError(f"Expected a positive number of texts. Received: {name}={size}.")
    return {**sizes, "num_transfer": num_transfer}


def _write_lines(path: pathlib.Path, lines: Iterable[str]) -> None:
    with files.replaced_file(path, "w") as handle:
        handle.writelines(line + "\n" for line in lines)


_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ASCII = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
_MARK = 0xF0000  # Private planes: as many code points as below 0x20000, and no text uses them.


def _marked(character: str) -> str:
    return chr(_MARK + ord(character))


def _unmarked(token: str) -> str:
    """A token of marked characters as WordPiece writes it."""
    plain = "".join(chr(ord(one) - _MARK) if ord(one) >= _MARK else one for one in token)
    return f"##{plain}" if ord(token[0]) >= _MARK else plain


def _marked_lines(paths: Sequence[Path]) -> Iterator[str]:
    """Each line as BERT splits it into words, all but the first character of each word marked."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    mark = functools.cache(
        lambda word: (
            word[0] + "".join(map(_marked, word[1:]))
            if max(word[1:], default="") < "\U00020000"
            else ""
        )
    )
    for path in map(pathlib.Path, paths):
        for number, line in rows.read_lines(path):
            if isinstance(line, rows.Problem):
                raise ValueError(f"{path} line {number}: {line.reason}.")
            words = splitter.pre_tokenize_str(normalizer.normalize_str(line))
            yield " ".join(mark(word) for word, _ in words)
