"""Counts the texts on which the in-graph tokenizer differs from the training tokenizer.

    python tools/check_graph_tokenizer.py --data_dir=$XDISTIL_DATA \
        --output_json=benchmarks/results/graph_tokenizer.json

Texts: every sentence of the data folder (GLUE, PAN-X words joined by a space, every line of the
raw texts), and seeded random Unicode of the kinds in `KINDS`. Ids are compared without truncation.
"""

import bz2
import csv
import json
import pathlib
import random
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from xdistil_tf import files
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.export.graph_tokenizer import make_graph_tokenizer
from xdistil_tf.export.parity import versions

FLAGS = flags.FLAGS

_UNLIMITED = 1 << 20
_BATCH_BYTES = 1 << 18
_SCRIPTS = (
    (0x41, 0x7B), (0xC0, 0x250), (0x370, 0x400), (0x400, 0x530), (0x531, 0x590), (0x5D0, 0x5F5),
    (0x600, 0x700), (0x900, 0x980), (0xE00, 0xE80), (0x10A0, 0x1100), (0x1100, 0x1200),
    (0x1E00, 0x2000), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xFB00, 0xFE00),
    (0xFF00, 0xFFF0), (0x1F300, 0x1F700), (0x20000, 0x20100),
)  # fmt: skip
_SPECIAL = ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<s>", "</s>", "<mask>", "[sep]", "[X]")
_SCALARS = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def random_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Seeded (kind, text), all kinds of `KINDS` in turn; a prefix of any longer list."""
    generator = random.Random(seed)
    names = list(KINDS)
    kinds = [names[index % len(names)] for index in range(count)]
    return [(kind, KINDS[kind](generator)) for kind in kinds]


def _characters(source: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    """Texts of 1 to 40 characters of `source`, a third of them after a space."""

    def draw(generator: random.Random) -> str:
        length = generator.randint(1, 40)
        parts = (generator.choice(("", "", " ")) + source(generator) for _ in range(length))
        return "".join(parts)

    return draw


def _by_category(*categories: str) -> Callable[[random.Random], str]:
    codes = [code for code in _SCALARS if unicodedata.category(chr(code)).startswith(categories)]
    return lambda generator: chr(generator.choice(codes))


def _script_character(generator: random.Random) -> str:
    return chr(generator.randrange(*generator.choice(_SCRIPTS)))


def _script_text(generator: random.Random) -> str:
    words = []
    for _ in range(generator.randint(1, 12)):
        script = generator.choice(_SCRIPTS)
        words.append(
            "".join(chr(generator.randrange(*script)) for _ in range(generator.choice((1, 3, 9))))
        )
    return generator.choice((" ", ", ", "\t", "\u3000", "-")).join(words)


def _marks(generator: random.Random) -> str:
    marks = "".join(chr(generator.choice(_MARK_CODES)) for _ in range(generator.randint(1, 4)))
    return _script_character(generator) + marks


def _special(generator: random.Random) -> str:
    return generator.choice((*_SPECIAL, "word", "a", ".", " "))


def _long_word(generator: random.Random) -> str:
    letter = generator.choice("aé中яß\U0001f600")
    return (
        letter * generator.choice((24, 25, 26, 33, 34, 49, 50, 51, 99, 100, 101, 102, 300)) + " b"
    )


_MARK_CODES = [code for code in _SCALARS if unicodedata.category(chr(code)).startswith("M")]

KINDS: dict[str, Callable[[random.Random], str]] = {
    "any scalar value": _characters(lambda generator: chr(generator.choice(_SCALARS))),
    "any character of the basic plane": _characters(
        lambda generator: chr(generator.choice(_SCALARS[:0xF800]))
    ),
    "assigned characters": _characters(_by_category("L", "M", "N", "P", "S", "Z")),
    "words of mixed scripts": _script_text,
    "letters with combining marks": _characters(_marks),
    "punctuation and symbols": _characters(_by_category("P", "S")),
    "separators, controls and formats": _characters(_by_category("Z", "Cc", "Cf", "Nd")),
    "literal special tokens": _characters(_special),
    "long words": _long_word,
}


def corpus(data_dir: pathlib.Path) -> Iterator[tuple[str, str]]:
    """(source, text) of every sentence or line; the source is a folder such as `glue/SST-2`."""
    for path in sorted((data_dir / "glue").glob("*/*.tsv")):
        for fields in csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE):
            for field in fields:
                yield f"glue/{path.parent.name}", field
    for path in sorted((data_dir / "ner/panx").glob("*.tsv")):
        words: list[str] = []
        for line in [*_lines(path), ""]:
            if line:
                words.append(line.split("\t")[0])
            elif words:
                yield f"ner/panx-{path.stem[-2:]}", " ".join(words)
                words = []
    for path in sorted((data_dir / "text").rglob("*")):
        if path.is_file():
            for line in _lines(path):
                yield f"text/{path.parent.name}", line
                if path.suffix == ".jsonl" and line:
                    yield f"text/{path.parent.name}", json.loads(line).get("text", "")


def _lines(path: pathlib.Path) -> list[str]:
    data = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    return data.decode(encoding, errors="replace").split("\n")


def differing(
    tokenizer: Tokenizer, graph: Callable, texts: Sequence[tuple[str, str]]
) -> tuple[dict[str, dict[str, int]], list[tuple[str, str]]]:
    """Counts per source `{"texts", "differing"}`, and the (source, text) that differ."""
    counts: dict[str, dict[str, int]] = {}
    found = []
    for batch in _batches(texts):
        features = graph(tf.constant([text for _, text in batch], tf.string))
        ids, lengths = features["input_ids"].numpy(), features["input_mask"].numpy().sum(1)
        expected = tokenizer.encode_batch([text for _, text in batch], max_length=_UNLIMITED)
        for row, (source, text) in enumerate(batch):
            count = counts.setdefault(source, {"texts": 0, "differing": 0})
            count["texts"] += 1
            if not np.array_equal(ids[row, : lengths[row]], expected[row].input_ids):
                count["differing"] += 1
                found.append((source, text))
    return counts, found


def _batches(texts: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    # Neighbours in length: a batch is padded to its longest row.
    batch, size = [], 0
    for item in sorted(texts, key=lambda item: len(item[1])):
        batch.append(item)
        size += len(item[1]) + 8
        if size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def measure(tokenizer: Tokenizer, real: Sequence, generated: Sequence) -> dict:
    """What stands in the result file for one tokenizer."""
    module = make_graph_tokenizer(tokenizer, _UNLIMITED)
    graph = tf.function(module, input_signature=[tf.TensorSpec([None], tf.string)])
    result = {"kind": tokenizer.kind, "do_lower_case": tokenizer.do_lower_case}
    for name, texts in (("real", real), ("random", generated)):
        counts, found = differing(tokenizer, graph, texts)
        wrong = sum(count["differing"] for count in counts.values())
        result[name] = {
            "texts": len(texts),
            "differing": wrong,
            "equal": 1 - wrong / len(texts) if texts else None,
            "by_source": counts,
            # Real texts may not be published; random ones are escaped.
            "examples": [[source, ascii(text)] for source, text in found[:20]]
            if name == "random"
            else [],
        }
    return result


def _tokenizers() -> dict[str, Tokenizer]:
    if FLAGS.tokenizer:
        named = dict(item.split("=", 1) for item in FLAGS.tokenizer)
    else:
        folder = pathlib.Path(FLAGS.data_dir) / "bert/vocab"
        named = {path.name.split(".")[0]: str(path) for path in sorted(folder.glob("*.vocab.txt"))}
    return {name: load_tokenizer(path) for name, path in named.items()}


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Folder with glue/, ner/panx/, text/ and bert/vocab/.")
    flags.DEFINE_multi_string(
        "tokenizer",
        None,
        "name=folder or name=vocab.txt; default: the vocabularies in bert/vocab/.",
    )
    flags.DEFINE_integer("random_texts", 40000, "Random texts per tokenizer.")
    flags.DEFINE_integer("seed", 42, "Of the random texts.")
    flags.DEFINE_string("output_json", "benchmarks/results/graph_tokenizer.json", "Result file.")


def main(_) -> None:
    if not FLAGS.data_dir:
        raise app.UsageError("--data_dir is needed.")
    real = sorted(set(corpus(pathlib.Path(FLAGS.data_dir))))
    generated = random_texts(FLAGS.random_texts, FLAGS.seed)
    results = {}
    for name, tokenizer in _tokenizers().items():
        start = time.time()
        results[name] = measure(tokenizer, real, generated)
        parts = [
            f"{part}: {results[name][part]['differing']} of {results[name][part]['texts']}"
            for part in ("real", "random")
        ]
        logging.info("%s differs on %s (%.0f s)", name, ", ".join(parts), time.time() - start)
    pathlib.Path(FLAGS.output_json).parent.mkdir(parents=True, exist_ok=True)
    files.write_json(
        FLAGS.output_json, {"seed": FLAGS.seed, "versions": versions(), "tokenizers": results}
    )
    logging.info("Written: %s", FLAGS.output_json)


if __name__ == "__main__":
    define_flags()
    app.run(main)
