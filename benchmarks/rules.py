"""d-BERT's rules on SST-2, in one process: variants a second, tagging included.

    python -m benchmarks.rules

Ours is `augment_by_rules` from the task folder to the file with its manifest. The other side is the
published method with the same tagger, in its own terms: each sentence is split and tagged once for
the words of each tag and once more to be varied, a draw for each word, a set of all that was made.
NLTK's splitting goes without its search for ends of sentences, which is in its favour; so is that
it keeps no record of where a variant comes from. Both leave out what was made before; what they
make differs by the borders of n-grams and by how words are split.
"""

from __future__ import annotations

import pathlib
import random
import tempfile
import time
from collections.abc import Callable

from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.result_files import comparison

P_MASK, P_POS, P_NGRAM, ITERATIONS = 0.1, 0.1, 0.25, 20
LENGTHS = (1, 2, 3, 4, 5)

FLAGS = flags.FLAGS


def ours(
    task_dir: str, work_dir: str, rows: int, seed: int
) -> dict[str, Callable[[], harness.Measured]]:
    """Task folder -> file."""
    from xdistil_tf.augment_rules import augment_by_rules
    from xdistil_tf.data.augmentation.settings import RuleSettings

    work = pathlib.Path(work_dir)
    harness.write_sample(task_dir, work / "task", rows, seed)
    settings = RuleSettings(P_MASK, P_POS, P_NGRAM, ITERATIONS, ngram_lengths=LENGTHS, seed=seed)

    def case() -> harness.Measured:
        output = work / "variants.tsv"
        output.unlink(missing_ok=True)
        began = time.perf_counter()
        made = augment_by_rules(work / "task", "sst-2", output, settings, num_processes=1)
        seconds = time.perf_counter() - began
        with output.open(encoding="utf-8") as handle:  # Behind the last tab stands what acted.
            count = sum(not line.endswith("\t\n") for line in handle) - 1
        return harness.Measured(count, seconds, {"rates": made["rates"]})

    return {"ours": case}


def published(work_dir: str, rows: int, seed: int) -> dict[str, Callable[[], harness.Measured]]:
    """The published method, to lines of a file."""
    from nltk.tokenize import NLTKWordTokenizer
    from textblob.en import parser

    split, work = NLTKWordTokenizer().tokenize, pathlib.Path(work_dir)

    def case() -> harness.Measured:
        rng = random.Random(seed)
        began = time.perf_counter()
        lines = (work / "task" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
        sentences = [line.split("\t")[0].strip() for line in lines]
        of_tag: dict[str, list[str]] = {}
        seen = set()
        for sentence in sentences:
            words = split(sentence)
            seen.add(" ".join(words))
            for word, tag in parser.find_tags(words):
                of_tag.setdefault(tag, []).append(word)
        made = 0
        with (work / "published.txt").open("w", encoding="utf-8") as handle:
            for sentence in sentences:
                tagged = parser.find_tags(split(sentence))
                for _ in range(ITERATIONS):
                    words, other = [], []
                    for word, tag in tagged:
                        chance = rng.random()
                        if chance < P_MASK:
                            word = "[MASK]"
                        elif chance < P_MASK + P_POS:
                            word = rng.choice(of_tag[tag])
                        words.append(word)
                        other.append(chance < P_MASK + P_POS)
                    if all(other):
                        continue
                    if rng.random() < P_NGRAM:
                        length = rng.choice(LENGTHS)
                        if len(words) <= length:
                            break
                        start = rng.randrange(len(words) - length)
                        words = words[start : start + length]
                    text = " ".join(words)
                    if text not in seen:
                        seen.add(text)
                        handle.write(text + "\n")
                        made += 1
        return harness.Measured(made, time.perf_counter() - began, None)

    return {"published": case}


def main(_) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        common = {"work_dir": temporary, "rows": FLAGS.sentences, "seed": FLAGS.seed}
        mine_arguments = common | {"task_dir": harness.data_folder("glue", "SST-2")}
        with (
            harness.Worker("benchmarks.rules:ours", mine_arguments) as mine,
            harness.Worker("benchmarks.rules:published", common) as theirs,
        ):
            cases = {"ours": mine.case("ours"), "published": theirs.case("published")}
            measured = harness.rounds(cases, FLAGS.repeats)
    rates = {name: [one.rate for one in values] for name, values in measured.items()}
    result_files.write_results(
        FLAGS.output or "rules",
        [comparison("rules, one process", rates["ours"], rates["published"], "variants/s", 5.0)],
        {
            "sentences": FLAGS.sentences,
            "iterations": ITERATIONS,
            "rates": measured["ours"][-1].extra["rates"],
        },
        measurements={f"{name} (variants/s)": values for name, values in rates.items()},
        seed=FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=5)
    flags.DEFINE_integer("sentences", 20_000, "Of SST-2's train.", lower_bound=1)
    app.run(main)
