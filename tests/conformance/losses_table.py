"""One row per use of a loss; `losses_test.py` holds every row to every promise.

A batch is a flat dict: features by their names, outputs as `student/logits` or
`teacher/hidden/2`. References are loops over positions in float64, written
without a look at the library. A new loss gets all promises by adding a row.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from xdistil_tf.recipe import Term

EXAMPLES, TOKENS, WIDTH, HEADS, CLASSES, SLOTS, VOCABULARY = 5, 6, 4, 2, 3, 2, 7
KEPT = 3
PAIRS = ((0, 0), (1, 2), (2, 4))
STUDENT_AVAILABLE = {
    "logits": None,
    "representation": None,
    "masked_lm_logits": None,
    "next_sentence_logits": None,
    "hidden": (0, 1, 2),
    "attention": (1, 2),
    "query": (1, 2),
    "value": (1, 2),
}
TEACHER_AVAILABLE = {
    "logits": None,
    "masked_lm_top_k": None,
    "representation": None,
    "hidden": (0, 1, 2, 3, 4),
    "attention": (1, 2, 3, 4),
    "query": (1, 2, 3, 4),
    "value": (1, 2, 3, 4),
}

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Row:
    """A term, the batch it is tried on, and its value computed by hand.

    Attributes:
      id: Name of the test case.
      term: Fields of the term.
      reference: Batch -> expected mean, in float64.
      task_type: Of the task.
      outputs: The output, and what its axes are.
      labels: Target features, and what their axes are.
      words: Whether the target are a teacher's most probable words; `teacher_words` has them.
      counts_padding: Whether padding changes the value, as it does where that was published.
    """

    id: str
    term: dict
    reference: Callable[[Batch], float]
    task_type: str | None = "classification"
    outputs: dict[str, str] = dataclasses.field(default_factory=dict)
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    counts_padding: bool = False
    words: bool = False

    def make_term(self, **changes) -> Term:
        return Term(**{**self.term, **changes})

    def axes(self, name: str) -> str:
        """The axes of an array of the batch, such as `BTD`."""
        return {**FEATURE_AXES, **self.labels, **self.outputs, **WORDS_AXES}[name]


FEATURE_AXES = {
    "input_mask": "BT",
    "word_index": "BT",
    "example_weights": "B",
    "masked_lm_weights": "BP",
}
WORDS_AXES = {
    "teacher/masked_lm_top_k/ids": "BPK",
    "teacher/masked_lm_top_k/log_probs": "BPK",
    "teacher/masked_lm_top_k/log_tail": "BP",
    "teacher/masked_lm_top_k/logsumexp/2": "BP",
}
SIZES = {
    "B": EXAMPLES,
    "T": TOKENS,
    "D": WIDTH,
    "E": 6,  # The width of a teacher that is wider,
    "H": HEADS,
    "G": 3,  # and has more heads.
    "C": CLASSES,
    "S": CLASSES + 1,
    "P": SLOTS,
    "V": VOCABULARY,
    "1": 1,
    "2": 2,
}


def make_batch(row: Row, seed: int = 3) -> Batch:
    """Random outputs and labels, sentences of different lengths."""
    random = np.random.default_rng(seed)
    lengths = np.array([6, 3, 4, 2, 5])
    mask = (np.arange(TOKENS) < lengths[:, None]).astype(np.int32)
    # Words of one and two pieces between two special tokens.
    words = np.array([[-1, 0, 0, 1, 2, -1]] * EXAMPLES)
    batch = {
        "input_mask": mask,
        "word_index": np.where(mask > 0, words, -1).astype(np.int32),
        "example_weights": np.array([1, 1, 0, 1, 1], np.float32),
        "masked_lm_weights": np.array([[1, 1], [1, 0], [1, 1], [0, 0], [1, 0]], np.float32),
    }
    for name, axes in row.labels.items():
        shape = [SIZES[axis] for axis in axes]
        if name == "label_weights":
            known = random.integers(0, 2, shape) if axes == "BT" else np.array([1, 0, 1, 1, 1])
            batch[name] = (known * mask if axes == "BT" else known).astype(np.float32)
        elif name == "label_values":
            batch[name] = random.normal(size=shape).astype(np.float32)
        else:
            batch[name] = random.integers(0, 2, shape).astype(np.int32)
    for name, axes in row.outputs.items():
        scale = 2.0 if name.startswith("student") else 3.0
        values = random.normal(size=[SIZES[axis] for axis in axes]) * scale
        batch[name] = values.astype(np.float32)
    return batch | (teacher_words(random) if row.words else {})


def teacher_words(random) -> Batch:
    """The KEPT most probable words of random scores; of one slot nothing is left to others."""
    scores = random.normal(size=(EXAMPLES, SLOTS, VOCABULARY)) * 2
    scores[0, 0, :KEPT] = 40
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    ids = np.argsort(-log_p, axis=-1)[..., :KEPT]
    kept = np.take_along_axis(log_p, ids, -1)
    arrays = {
        "ids": ids.astype(np.int32),
        "log_probs": kept.astype(np.float32),
        "log_tail": np.log(np.maximum(1 - np.exp(kept).sum(-1), 1e-40)).astype(np.float32),
        "logsumexp/2": np.log(np.exp(log_p / 2).sum(-1)).astype(np.float32),
    }
    return {f"teacher/masked_lm_top_k/{name}": value for name, value in arrays.items()}


# Row C of the potentials are those of first tags.


def over_sequences(batch):
    """The negative log-likelihood of each sentence, by enumeration, over the number of words."""
    total = count = 0.0
    for b in np.flatnonzero(batch["example_weights"]):
        places = np.flatnonzero(batch["label_weights"][b])
        potentials = np.float64(batch["student/potentials"][b])

        def score(tags, places=places, potentials=potentials):
            steps = zip(places, (CLASSES, *tags[:-1]), tags, strict=True)
            return sum(potentials[place, before, tag] for place, before, tag in steps)

        every = itertools.product(range(CLASSES), repeat=len(places))
        total += np.log(sum(np.exp(score(tags)) for tags in every))
        total -= score(tuple(batch["label_ids"][b, places]))
        count += len(places)
    return total / count


# The mathematics, on one vector in float64.


def softmax(scores):
    exponentials = np.exp(np.asarray(scores, np.float64) - np.max(scores))
    return exponentials / exponentials.sum()


def squared(target, output):
    return np.mean((np.asarray(target, np.float64) - np.asarray(output, np.float64)) ** 2)


def divergence(target, output, temperature=1.0):
    p, q = softmax(np.float64(target) / temperature), softmax(np.float64(output) / temperature)
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))


def soft_entropy(target, output, temperature=1.0):
    p, q = softmax(np.float64(target) / temperature), softmax(np.float64(output) / temperature)
    return -sum(a * np.log(b) for a, b in zip(p, q, strict=True))


def label_entropy(label, scores):
    return -np.log(softmax(scores)[label])


def cosine(target, output):
    a, b = np.asarray(target, np.float64), np.asarray(output, np.float64)
    return 1 - a @ b / np.sqrt((a @ a) * (b @ b))


def clipped_kl(target, output):
    a = np.clip(np.asarray(target, np.float64), 1e-7, 1)
    b = np.clip(np.asarray(output, np.float64), 1e-7, 1)
    return np.sum(a * np.log(a / b))


# The positions: each gives the mean of `value` over the positions that count.


def over_examples(value, output="logits", target=None, weights=None):
    def mean(batch):
        total = count = 0.0
        for b in range(len(batch["example_weights"])):
            weight = batch["example_weights"][b] * (batch[weights][b] if weights else 1)
            if weight:
                total += weight * value(
                    batch[target or f"teacher/{output}"][b], batch[f"student/{output}"][b]
                )
                count += weight
        return total / count

    return mean


def over_words(tail, k=KEPT, temperature=1.0):
    """The mean over slots of what docs/pretraining.md, section 4 says of each tail."""

    def value(batch, b, s):
        kept = np.float64(batch["teacher/masked_lm_top_k/log_probs"][b, s]) / temperature
        if temperature != 1.0:
            kept -= np.float64(batch["teacher/masked_lm_top_k/logsumexp/2"][b, s])
        p, ids = np.exp(kept)[:k], batch["teacher/masked_lm_top_k/ids"][b, s, :k]
        q = softmax(np.float64(batch["student/masked_lm_logits"][b, s]) / temperature)
        inside = -sum(a * np.log(q[i]) for a, i in zip(p, ids, strict=True))
        if tail == "bucket":
            others = sum(q[i] for i in range(VOCABULARY) if i not in ids)
            return inside - (1 - sum(p)) * np.log(others)
        return inside / sum(p) if tail == "renormalise" else inside

    def mean(batch):
        weights = batch["masked_lm_weights"] * batch["example_weights"][:, None]
        places = np.argwhere(weights > 0)
        return np.mean([value(batch, b, s) for b, s in places])

    return mean


def over_tokens(
    value, output, target=None, weights="input_mask", padding=False, layers=None, words=False
):
    def mean_of(batch, student, teacher):
        total = count = 0.0
        for b, row in enumerate(batch[weights]):
            for t, weight in enumerate(row):
                weight = (1 if padding else weight) * batch["example_weights"][b]
                if words:
                    word = batch["word_index"][b]
                    weight *= word[t] >= 0 and word[t] != word[t - 1]
                if weight:
                    total += weight * value(batch[teacher][b, t], batch[student][b, t])
                    count += weight
        return total / count

    def mean(batch):
        if layers is None:
            return mean_of(batch, f"student/{output}", target or f"teacher/{output}")
        return sum(
            mean_of(batch, f"student/{output}/{s}", f"teacher/{output}/{t}") for s, t in layers
        )

    return mean


def attention_squared(batch):
    value = 0.0
    for student, teacher in PAIRS[1:]:
        total = count = 0.0
        for b, mask in enumerate(batch["input_mask"]):
            for q in range(len(mask)):
                for k in range(len(mask)):
                    if mask[q] and mask[k] and batch["example_weights"][b]:
                        total += squared(
                            batch[f"teacher/attention/{teacher}"][b, :, q, k],
                            batch[f"student/attention/{student}"][b, :, q, k],
                        )
                        count += 1
        value += total / count
    return value


def attention_as_published(batch):
    """`mean((z(student) - z(teacher))**2)` of whole arrays, where z zeroes masked keys."""
    rows = batch["example_weights"] > 0
    keys = batch["input_mask"][rows][:, None, None, :]
    value = 0.0
    for student, teacher in PAIRS[1:]:
        a = np.float64(batch[f"student/attention/{student}"][rows]) * keys
        b = np.float64(batch[f"teacher/attention/{teacher}"][rows]) * keys
        a, b = np.where(a <= -100, 0, a), np.where(b <= -100, 0, b)
        value += np.mean((a - b) ** 2)
    return value


def attention_divergence(batch):
    value = 0.0
    for student, teacher in PAIRS[1:]:
        total = count = 0.0
        for b, mask in enumerate(batch["input_mask"]):
            keys = mask.astype(bool)
            for q in np.flatnonzero(keys):
                if batch["example_weights"][b]:
                    total += np.mean(
                        [
                            divergence(
                                batch[f"teacher/attention/{teacher}"][b, h, q, keys],
                                batch[f"student/attention/{student}"][b, h, q, keys],
                            )
                            for h in range(HEADS)
                        ]
                    )
                    count += 1
        value += total / count
    return value


def attention_means_squared(batch):
    means = {
        name: value.mean(1, keepdims=True)
        for name, value in batch.items()
        if name.split("/")[1:2] == ["attention"]
    }
    return attention_squared(batch | means)


def relation_divergence(output, heads):
    """MiniLMv2's: vectors cut into heads, softmax of scaled products over the real tokens."""

    def relations(vectors, keys, token, head):
        part = np.float64(vectors).reshape(len(vectors), heads, -1)[:, head]
        return part[keys] @ part[token] / np.sqrt(part.shape[-1])

    def mean(batch):
        value = 0.0
        for student, teacher in PAIRS[1:]:
            found = []
            for b in np.flatnonzero(batch["example_weights"]):
                keys = batch["input_mask"][b].astype(bool)
                sides = [
                    batch[f"{who}/{output}/{layer}"][b]
                    for who, layer in (("teacher", teacher), ("student", student))
                ]
                for token in np.flatnonzero(keys):
                    found.append(
                        np.mean(
                            [
                                divergence(*(relations(one, keys, token, h) for one in sides))
                                for h in range(heads)
                            ]
                        )
                    )
            value += np.mean(found)
        return value

    return mean


def _wider(output: str, axes: str, teacher_axes: str) -> dict[str, str]:
    """Layers of a student and of a teacher that is of another shape."""
    both = _layers(output, axes, PAIRS[1:])
    return {name: teacher_axes if name.startswith("teacher") else axes for name in both}


def _both(output: str, axes: str) -> dict[str, str]:
    return {f"student/{output}": axes, f"teacher/{output}": axes}


def _layers(output: str, axes: str, pairs) -> dict[str, str]:
    return {
        f"{who}/{output}/{pair[side]}": axes
        for pair in pairs
        for side, who in enumerate(("student", "teacher"))
    }


_SENTENCE_LABELS = {"label_ids": "B", "label_weights": "B"}
_TOKEN_LABELS = {"label_ids": "BT", "label_weights": "BT"}
_TAGGING = {"task_type": "tagging", "outputs": _both("logits", "BTC")}
_SENTENCE = {"outputs": _both("logits", "BC")}
_HIDDEN = {"outputs": _layers("hidden", "BTD", PAIRS)}
_ATTENTION = {"outputs": _layers("attention", "BHTT", PAIRS[1:])}

ROWS = (
    Row(
        "mean_squared_error-logits",
        {"loss": "mean_squared_error", "output": "logits"},
        over_examples(squared),
        **_SENTENCE,
    ),
    Row(
        "mean_squared_error-logits-tagging",
        {"loss": "mean_squared_error", "output": "logits"},
        over_tokens(squared, "logits"),
        **_TAGGING,
    ),
    Row(
        "mean_squared_error-logits-tagging-words",
        {"loss": "mean_squared_error", "output": "logits", "at": "word"},
        over_tokens(squared, "logits", words=True),
        **_TAGGING,
    ),
    Row(
        "mean_squared_error-logits-tagging-with_padding",
        {"loss": "mean_squared_error", "output": "logits", "mask": "none"},
        over_tokens(squared, "logits", padding=True),
        counts_padding=True,
        **_TAGGING,
    ),
    Row(
        "mean_squared_error-representation",
        {"loss": "mean_squared_error", "output": "representation"},
        over_examples(squared, "representation"),
        outputs=_both("representation", "BD"),
    ),
    Row(
        "mean_squared_error-representation-tagging",
        {"loss": "mean_squared_error", "output": "representation"},
        over_tokens(squared, "representation"),
        "tagging",
        outputs=_both("representation", "BTD"),
    ),
    Row(
        "mean_squared_error-hidden",
        {"loss": "mean_squared_error", "output": "hidden", "layers": "uniform"},
        over_tokens(squared, "hidden", layers=PAIRS),
        **_HIDDEN,
    ),
    Row(
        "mean_squared_error-hidden-as_published",
        {
            "loss": "mean_squared_error",
            "output": "hidden",
            "layers": "uniform",
            "reduction": "as_published",
        },
        over_tokens(squared, "hidden", layers=PAIRS, padding=True),
        counts_padding=True,
        **_HIDDEN,
    ),
    Row(
        "mean_squared_error-value",
        {"loss": "mean_squared_error", "output": "value", "layers": ((1, 3),)},
        over_tokens(squared, "value", layers=((1, 3),)),
        outputs=_layers("value", "BTD", ((1, 3),)),
    ),
    Row(
        "mean_squared_error-attention",
        {"loss": "mean_squared_error", "output": "attention", "layers": "uniform"},
        attention_squared,
        **_ATTENTION,
    ),
    Row(
        "mean_squared_error-attention-as_published",
        {
            "loss": "mean_squared_error",
            "output": "attention",
            "layers": "uniform",
            "reduction": "as_published",
        },
        attention_as_published,
        counts_padding=True,
        **_ATTENTION,
    ),
    Row(
        "mean_squared_error-attention-mean_of_heads",
        {
            "loss": "mean_squared_error",
            "output": "attention",
            "layers": "uniform",
            "options": {"heads": "mean"},
        },
        attention_means_squared,
        outputs=_wider("attention", "BHTT", "BGTT"),
    ),
    Row(
        "relation_kl_divergence-query-other_width",
        {
            "loss": "relation_kl_divergence",
            "output": "query",
            "layers": "uniform",
            "options": {"heads": 2},
        },
        relation_divergence("query", 2),
        outputs=_wider("query", "BTD", "BTE"),
    ),
    Row(
        "relation_kl_divergence-value",
        {
            "loss": "relation_kl_divergence",
            "output": "value",
            "layers": "uniform",
            "options": {"heads": 4},
        },
        relation_divergence("value", 4),
        outputs=_wider("value", "BTD", "BTD"),
    ),
    Row(
        "soft_task-classification",
        {"loss": "soft_task"},
        over_examples(soft_entropy),
        **_SENTENCE,
    ),
    Row(
        "soft_task-regression",
        {"loss": "soft_task"},
        over_examples(squared),
        "regression",
        outputs=_both("logits", "B1"),
    ),
    Row(
        "task-regression",
        {"loss": "task"},
        over_examples(
            lambda y, x: (np.float64(y) - x[0]) ** 2, "logits", "label_values", "label_weights"
        ),
        "regression",
        outputs={"student/logits": "B1"},
        labels={"label_values": "B", "label_weights": "B"},
    ),
    Row(
        "kl_divergence-logits-temperature",
        {"loss": "kl_divergence", "output": "logits", "temperature": 2.0},
        over_examples(lambda t, s: divergence(t, s, 2.0)),
        **_SENTENCE,
    ),
    Row(
        "kl_divergence-representation-tagging",
        {"loss": "kl_divergence", "output": "representation"},
        over_tokens(divergence, "representation"),
        "tagging",
        outputs=_both("representation", "BTD"),
    ),
    Row(
        "kl_divergence-representation-tagging-as_published",
        {"loss": "kl_divergence", "output": "representation", "reduction": "as_published"},
        over_tokens(clipped_kl, "representation", padding=True),
        "tagging",
        outputs=_both("representation", "BTD"),
        counts_padding=True,
    ),
    Row(
        "kl_divergence-attention",
        {"loss": "kl_divergence", "output": "attention", "layers": "uniform"},
        attention_divergence,
        **_ATTENTION,
    ),
    Row(
        "soft_cross_entropy-logits-temperature",
        {"loss": "soft_cross_entropy", "output": "logits", "temperature": 3.0},
        over_examples(lambda t, s: soft_entropy(t, s, 3.0)),
        **_SENTENCE,
    ),
    Row(
        "soft_cross_entropy-logits-as_published",
        {"loss": "soft_cross_entropy", "output": "logits", "reduction": "as_published"},
        over_examples(lambda t, s: soft_entropy(t, s) / CLASSES),
        **_SENTENCE,
    ),
    Row(
        "soft_cross_entropy-logits-tagging",
        {"loss": "soft_cross_entropy", "output": "logits"},
        over_tokens(soft_entropy, "logits"),
        **_TAGGING,
    ),
    Row(
        "task-classification",
        {"loss": "task"},
        over_examples(label_entropy, "logits", "label_ids", "label_weights"),
        outputs={"student/logits": "BC"},
        labels=_SENTENCE_LABELS,
    ),
    Row(
        "task-tagging",
        {"loss": "task"},
        over_tokens(label_entropy, "logits", "label_ids", "label_weights"),
        "tagging",
        outputs={"student/logits": "BTC"},
        labels=_TOKEN_LABELS,
    ),
    Row(
        "crf_negative_log_likelihood-potentials",
        {
            "loss": "crf_negative_log_likelihood",
            "output": "potentials",
            "target": "label_ids",
        },
        over_sequences,
        "tagging",
        outputs={"student/potentials": "BTSC"},
        labels=_TOKEN_LABELS,
    ),
    Row(
        "cross_entropy-masked_lm",
        {"loss": "cross_entropy", "output": "masked_lm_logits", "target": "masked_lm_ids"},
        over_tokens(label_entropy, "masked_lm_logits", "masked_lm_ids", "masked_lm_weights"),
        None,
        outputs={"student/masked_lm_logits": "BPV"},
        labels={"masked_lm_ids": "BP"},
    ),
    *(
        Row(
            f"top_k_cross_entropy-{name}",
            {"loss": "top_k_cross_entropy", "output": "masked_lm_logits", **fields},
            over_words(**changes),
            None,
            outputs={"student/masked_lm_logits": "BPV"},
            words=True,
        )
        for name, fields, changes in (
            ("bucket", {}, {"tail": "bucket"}),
            ("bucket-2", {"options": {"k": 2}}, {"tail": "bucket", "k": 2}),
            ("bucket-temperature", {"temperature": 2.0}, {"tail": "bucket", "temperature": 2.0}),
            ("renormalise", {"options": {"tail": "renormalise"}}, {"tail": "renormalise"}),
            ("as_published", {"options": {"tail": "as_published"}}, {"tail": "as_published"}),
        )
    ),
    Row(
        "cross_entropy-next_sentence",
        {
            "loss": "cross_entropy",
            "output": "next_sentence_logits",
            "target": "next_sentence_labels",
        },
        over_examples(label_entropy, "next_sentence_logits", "next_sentence_labels"),
        None,
        outputs={"student/next_sentence_logits": "B2"},
        labels={"next_sentence_labels": "B"},
    ),
    Row(
        "cosine_distance-representation",
        {"loss": "cosine_distance", "output": "representation"},
        over_examples(cosine, "representation"),
        outputs=_both("representation", "BD"),
    ),
    Row(
        "cosine_distance-hidden",
        {"loss": "cosine_distance", "output": "hidden", "layers": "last"},
        over_tokens(cosine, "hidden", layers=((2, 4),)),
        outputs=_layers("hidden", "BTD", ((2, 4),)),
    ),
)
