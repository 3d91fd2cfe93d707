"""TinyBERT's augmentation of SST-2 with a masked LM of BERT-base's size: sentences a second.

    python -m benchmarks.augmentation

Candidates of every replaceable word, as many a word on both sides, and the rounds. Ours is
`augment` from the task folder to the file. The other side is the published method with PyTorch and
`transformers`: for each word of one piece a forward pass of batch 1, the sentence behind its masked
self, scores of the whole vocabulary at every place, sorted. Word vectors are those of the model on
our side and none on the other, which is in its favour.
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.result_files import comparison

CANDIDATES, ROUNDS, PROBABILITY = 15, 20, 0.4


def ours(
    task_dir: str, vocabulary: str, work_dir: str, rows: int, seed: int
) -> dict[str, Callable[[], harness.Measured]]:
    """`augment`, the loading of the model included."""
    from xdistil_tf import augment
    from xdistil_tf.data.tokenization import load_tokenizer
    from xdistil_tf.models import folders
    from xdistil_tf.models.encoder import Encoder

    work = pathlib.Path(work_dir)
    harness.write_sample(task_dir, work / "task", rows, seed)
    tokenizer = load_tokenizer(vocabulary)
    config = {"vocab_size": tokenizer.vocab_size, "head": {"kind": "pretraining"}}
    folders.save_model(Encoder.from_config_dict(config, seed=seed), work / "model")
    tokenizer.save(work / "model")
    settings = augment.Settings(
        rounds=ROUNDS, candidates=CANDIDATES, replace_prob=PROBABILITY, seed=seed
    )

    def case() -> harness.Measured:
        output = work / "augmented.tsv"
        output.unlink(missing_ok=True)
        began = time.perf_counter()
        made = augment.augment(work / "task", "sst-2", str(work / "model"), output, settings)
        seconds = time.perf_counter() - began
        return harness.Measured(rows, seconds, {"rows": made["rows"]}, harness.peak_mb())

    return {"ours": case}


def published(work_dir: str, rows: int, seed: int) -> dict[str, Callable[[], harness.Measured]]:
    """The published method on some of the sentences."""
    import torch
    import transformers

    from xdistil_tf.data.augmentation import words
    from xdistil_tf.data.tokenization import load_tokenizer

    torch.manual_seed(seed)
    work = pathlib.Path(work_dir)
    lines = (work / "task" / "train.tsv").read_text(encoding="utf-8").splitlines()[1 : rows + 1]
    tokenizer = load_tokenizer(work / "model")
    model = transformers.BertForMaskedLM(
        transformers.BertConfig(vocab_size=tokenizer.vocab_size)
    ).eval()
    random = np.random.default_rng(seed)

    def candidates(text, word) -> list[str]:
        ids = [tokenizer.cls_id, *text.ids, tokenizer.sep_id]
        ids[word.first + 1] = tokenizer.mask_id
        segments = [0] * len(ids) + [1] * (len(text.ids) + 1)
        ids = [*ids, *text.ids, tokenizer.sep_id]
        given = torch.tensor([ids]), torch.tensor([segments])
        scores = model(input_ids=given[0], token_type_ids=given[1]).logits
        order = np.argsort(scores[0, word.first + 1].detach().numpy())[::-1][:CANDIDATES]
        return [tokenizer.tokens[one] for one in order if "##" not in tokenizer.tokens[one]]

    def case() -> harness.Measured:
        asked, made = 0, 0
        began = time.perf_counter()
        for line in lines:
            sentence = line.split("\t")[0].strip()
            (text,) = words.read_texts(tokenizer, [sentence])
            found = {}
            for place, word in enumerate(text.words):
                if word.replaceable and word.pieces == 1:
                    found[place] = candidates(text, word)
                    asked += 1
            seen = {sentence}
            for _ in range(ROUNDS):
                tokens = [word.text for word in text.words]
                for place, choices in found.items():
                    choice = choices[int(random.integers(len(choices)))]
                    if random.random() < PROBABILITY:
                        tokens[place] = choice
                seen.add(" ".join(tokens))
            made += len(seen)
        seconds = time.perf_counter() - began
        return harness.Measured(len(lines), seconds, {"asked": asked, "rows": made})

    return {"published": case}


def main(_) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        common = {"work_dir": temporary, "seed": harness.FLAGS.seed}
        mine_arguments = {
            "task_dir": harness.data_folder("glue", "SST-2"),
            "vocabulary": harness.data_folder("bert", "vocab", "bert-base-uncased.vocab.txt"),
            "rows": harness.FLAGS.sentences,
        }
        with (
            harness.Worker("benchmarks.augmentation:ours", common | mine_arguments) as mine,
            harness.Worker(
                "benchmarks.augmentation:published",
                common | {"rows": harness.FLAGS.other_sentences},
                harness.TORCH_ONLY,
            ) as theirs,
        ):
            cases = {"ours": mine.case("ours"), "published": theirs.case("published")}
            measured = harness.rounds(cases, harness.FLAGS.repeats, warmup=0)
    rates = {name: [one.rate for one in values] for name, values in measured.items()}
    result_files.write_results(
        harness.FLAGS.output or "augmentation",
        [comparison("augmentation", rates["ours"], rates["published"], "sentences/s", 10.0)],
        {
            "sentences": harness.FLAGS.sentences,
            "other_sentences": harness.FLAGS.other_sentences,
            "candidates": CANDIDATES,
            "rounds": ROUNDS,
            "last": {name: values[-1].extra for name, values in measured.items()},
        },
        measurements={f"{name} (sentences/s)": values for name, values in rates.items()},
        seed=harness.FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=3)
    flags.DEFINE_integer("sentences", 2000, "Of ours.", lower_bound=1)
    flags.DEFINE_integer("other_sentences", 40, "Of the published method.", lower_bound=1)
    app.run(main)
