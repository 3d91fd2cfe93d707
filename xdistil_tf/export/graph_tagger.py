"""Strings to words, tags and entities inside the graph, as `predict_tags.py` finds them outside.

text -> words -> pieces -> windows -> student -> emissions of words -> tags -> entities
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from xdistil_tf import crf
from xdistil_tf.data import raw_words, tags
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.export import graph_tokenizer, graph_windows
from xdistil_tf.export.graph_words import GraphWords


class GraphTagger(tf.Module):
    """A tagging model with its tokenizer.

    Args:
      student: The model, in float32.
      tokenizer: Of the model; `graph_tokenizer.obstacle` is None.
      labels: The tags in the order of their ids.
      max_length: Pieces of a window, special tokens included.
      spans: Whether the tags mark spans.
    """

    def __init__(
        self,
        student,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        max_length: int,
        spans: bool = True,
    ):
        super().__init__(name="graph_tagger")
        made = graph_tokenizer.make_graph_tokenizer(tokenizer, max_length)
        # Functions and not the model itself: what a module holds is saved with it.
        self._logits = lambda features: student(features, training=False)["logits"]
        self._decode = lambda emissions, words: decoded(student, emissions, words)
        self._words = GraphWords(raw_words.word_splitter(tokenizer))
        self._pieces, self._layout = made.pieces, made.layout
        self._room = max_length - len(self._layout.before) - len(self._layout.after)
        self._blank = tokenizer.blank_id
        self._tags = _Tags(labels, spans)

    def __call__(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Tags a batch of texts; unused places are empty, 0.

        Args:
          text: String `[B]`.

        Returns:
          `num_words` int32 `[B]`; `words`, `tags` string, `word_starts`, `word_ends` int32 and
          `word_scores` float32 `[B, W]`; `num_entities` int32 `[B]`; `entity_types` string,
          `entity_starts`, `entity_ends` int32 and `entity_scores` float32 `[B, S]`. Places are code
          points, ends not included.
        """
        words, starts, ends = self._words(text)
        counts = tf.cast(words.row_lengths(), tf.int32)
        emissions = self._emissions(words, counts)
        real = tf.sequence_mask(counts, tf.shape(emissions)[1])
        numbers, scores = self._decode(emissions, real)
        starts, ends, scores = starts.to_tensor(), ends.to_tensor(), tf.where(real, scores, 0.0)
        return {
            "num_words": counts,
            "words": words.to_tensor(),
            "word_starts": starts,
            "word_ends": ends,
            "word_scores": scores,
            **self._tags(numbers, real, starts, ends, scores),
        }

    def _emissions(self, words: tf.RaggedTensor, counts: tf.Tensor) -> tf.Tensor:
        """Logits of the first piece of each word in its own window, `[B, W, C]`."""
        pieces = self._pieces_of(words.values)
        sizes = words.with_values(tf.cast(pieces.row_lengths(), tf.int32)).to_tensor()  # [B, W]
        begins = tf.pad(tf.cumsum(sizes, axis=1), [[0, 0], [1, 0]])
        windows = graph_windows.cut(begins, counts, self._room)
        before = tf.cumsum(begins[:, -1], exclusive=True)  # Pieces of the sentences before.

        def places(word):
            return tf.gather_nd(begins, tf.stack([windows.sentence, word], 1))

        offset = tf.gather(before, windows.sentence)
        spans = tf.ragged.range(offset + places(windows.first), offset + places(windows.stop))
        ids = spans.with_values(tf.gather(pieces.values, spans.values))
        parts = [self._layout.before, (ids, 0), self._layout.after]
        features = graph_tokenizer.assemble(parts, ids.nrows())
        logits = tf.cast(self._logits(features), tf.float32)
        first = tf.gather(places(windows.first), windows.of_word)  # [B, W]
        place = len(self._layout.before) + begins[:, :-1] - first
        real = tf.sequence_mask(counts, tf.shape(sizes)[1])
        where = tf.where(real[..., tf.newaxis], tf.stack([windows.of_word, place], -1), 0)
        return tf.gather_nd(logits, where)

    def _pieces_of(self, words: tf.Tensor) -> tf.RaggedTensor:
        """At least one piece of each word, at most a window of them."""
        pieces = tf.cast(self._pieces(words), tf.int32)
        nothing = tf.cast(pieces.row_lengths() == 0, tf.int64)
        blanks = tf.RaggedTensor.from_row_lengths(
            tf.fill([tf.reduce_sum(nothing)], self._blank), nothing, validate=False
        )
        return tf.concat([pieces, blanks], 1)[:, : self._room]


def decoded(student, emissions: tf.Tensor, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Tags int32 `[B, W]` and their probabilities: by the student's CRF, where it has one.

    Args:
      student: The model.
      emissions: float32 `[B, W, C]`.
      words: bool `[B, W]`, which positions are words.
    """
    if getattr(student, "crf", None) is None:
        probabilities = tf.nn.softmax(emissions)
        return tf.argmax(emissions, -1, tf.int32), tf.reduce_max(probabilities, -1)
    count = tf.shape(words)[1]
    # A chain has at least one step.
    words = tf.pad(words, [[0, 0], [0, 1]])
    potentials = student.crf(tf.pad(emissions, [[0, 0], [0, 1], [0, 0]]))
    best = crf.best_tags(potentials, words)
    marginals = tf.exp(crf.log_marginals(potentials, words))
    return best[:, :count], tf.gather(marginals, best, batch_dims=2)[:, :count]


class _Tags(tf.Module):
    """Ids of tags to IOB2 and entities; an `I-` that goes on with nothing begins one."""

    def __init__(self, labels: Sequence[str], spans: bool):
        super().__init__(name="tags")
        types = sorted({label[2:] for label in labels if spans and label != tags.OUTSIDE})
        of = [types.index(label[2:]) if label[2:] in types else -1 for label in labels]
        if not spans:
            of = [-1] * len(labels)
        begun = [
            f"B-{types[one]}" if one >= 0 else label for one, label in zip(of, labels, strict=True)
        ]
        self._type_of = tf.constant(np.array(of, np.int32))
        self._inside = tf.constant([spans and label.startswith("I-") for label in labels])
        self._names, self._begun = tf.constant(list(labels)), tf.constant(begun)
        self._types = tf.constant([*types, ""])

    def __call__(self, numbers, real, starts, ends, scores) -> dict[str, tf.Tensor]:
        """The outputs of `GraphTagger` that tell tags and entities.

        Args:
          numbers: int32 `[B, W]`, ids of tags.
          real: bool `[B, W]`, which places hold a word.
          starts, ends: int32 `[B, W]`, of words.
          scores: float32 `[B, W]`.
        """
        types = tf.where(real, tf.gather(self._type_of, numbers), -1)
        inside = tf.gather(self._inside, numbers)
        before = tf.pad(types[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
        begins = (types >= 0) & (~inside | (before != types))
        names = tf.where(begins, tf.gather(self._begun, numbers), tf.gather(self._names, numbers))
        goes_on = (types >= 0) & ~begins
        after = tf.pad(goes_on[:, 1:], [[0, 0], [0, 1]])
        first, last = tf.where(begins), tf.where((types >= 0) & ~after)  # [M, 2], in one order
        number = tf.cumsum(tf.cast(tf.reshape(begins, [-1]), tf.int32)) - 1
        of_word = tf.boolean_mask(number, tf.reshape(types >= 0, [-1]))
        lowest = tf.math.segment_min(tf.boolean_mask(scores, types >= 0), of_word)

        def by_text(values):
            count = tf.cast(tf.shape(numbers)[0], tf.int64)
            rows = tf.RaggedTensor.from_value_rowids(values, first[:, 0], count, validate=False)
            return rows.to_tensor()

        return {
            "tags": tf.where(real, names, ""),
            "num_entities": tf.reduce_sum(tf.cast(begins, tf.int32), 1),
            "entity_types": by_text(tf.gather(self._types, tf.gather_nd(types, first))),
            "entity_starts": by_text(tf.gather_nd(starts, first)),
            "entity_ends": by_text(tf.gather_nd(ends, last)),
            "entity_scores": by_text(lowest),
        }
