"""Tags and entities for a file of texts, one JSON object a line, in its order and constant memory.

```
text -> words -> windows -> emissions of each word -> tags of the sentence -> entities
```
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xdistil_tf.data import raw_words, tags, windows
from xdistil_tf.data.padding import pad_batch
from xdistil_tf.data.tokenizer import Tokenizer, WordWindow
from xdistil_tf.tag_decoding import Decoder

# So many lines are tokenized, sorted by length and run together before they are written.
CHUNK = 4096
_DIGITS = 6


@dataclasses.dataclass(frozen=True, slots=True)
class TaggedWords:
    """The answer to one text.

    Attributes:
      tags: In IOB2, one a word.
      scores: float32, the probability of each word's tag.
    """

    tags: list[str]
    scores: np.ndarray


class Tagger:
    """A trained tagging model.

    Args:
      logits_of: Emissions `[B, T, C]` of a batch.
      decode: How emissions of whole sentences become tags.
      tokenizer: Of the model.
      labels: The tags in the order of their ids.
      max_length: Pieces of a window.
    """

    def __init__(
        self,
        logits_of: Callable[[dict[str, tf.Tensor]], tf.Tensor],
        decode: Decoder,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        max_length: int,
        spans: bool = True,
    ):
        self._logits_of, self._decode = logits_of, decode
        self._tokenizer, self._labels, self._max_length = tokenizer, tuple(labels), max_length
        self._scheme = "iob" if spans else "none"
        self._split = raw_words.word_splitter(tokenizer)

    def tag(
        self,
        sentences: Sequence[Sequence[str]],
        batch_size: int = 64,
        done: Callable[[int], object] = lambda count: None,
    ) -> list[TaggedWords]:
        """Tags sentences of words, in their order; `done` is told of every one that is complete."""
        encoded = self._tokenizer.encode_windows(sentences, self._max_length)
        emissions = self._emissions(sentences, encoded, batch_size, done)
        return [self._answer(*one) for one in self._decode(emissions)]

    def rows(
        self,
        lines: Iterable[str],
        batch_size: int = 64,
        done: Callable[[int], object] = lambda count: None,
        pretokenized: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """One JSON object for each line, read and predicted chunk by chunk.

        Args:
          lines: Texts.
          batch_size: Windows of a forward pass.
          done: Is told the number of texts that are complete.
          pretokenized: Whether words are what white space separates, whatever the tokenizer.
        """
        split = raw_words.split_at_spaces if pretokenized else self._split
        remaining = iter(lines)
        while chunk := list(itertools.islice(remaining, CHUNK)):
            places = [split(text) for text in chunk]
            sentences = [
                [text[start:stop] for start, stop in found]
                for text, found in zip(chunk, places, strict=True)
            ]
            tagged = self.tag(sentences, batch_size, done)
            for text, found, answer in zip(chunk, places, tagged, strict=True):
                yield self._object(text, found, answer)

    def _emissions(
        self,
        sentences: Sequence[Sequence[str]],
        encoded: Sequence[Sequence[WordWindow]],
        batch_size: int,
        done: Callable[[int], object],
    ) -> list[np.ndarray]:
        """Of each sentence those of its words, `[W, C]`."""
        count = len(self._labels)
        found = [np.zeros((len(words), count), np.float32) for words in sentences]
        left = [len(some) for some in encoded]
        numbered = [(number, one) for number, some in enumerate(encoded) for one in some]
        # Similar lengths share a batch, so little is padded.
        numbered.sort(key=lambda one: len(one[1].encoding.input_ids))
        for start in range(0, len(numbered), batch_size):
            batch = numbered[start : start + batch_size]
            arrays = pad_batch(
                [one.encoding.input_ids for _, one in batch],
                [one.encoding.segment_ids for _, one in batch],
            )
            values = self._logits_of({k: tf.constant(v) for k, v in arrays.items()}).numpy()
            for (number, one), rows in zip(batch, values, strict=True):
                pieces, words = _own_first_pieces(one)
                found[number][words] = rows[pieces]
                left[number] -= 1
            done(sum(not left[number] for number in {number for number, _ in batch}))
        return found

    def _answer(self, numbers: np.ndarray, scores: np.ndarray) -> TaggedWords:
        named = [self._labels[number] for number in numbers]
        return TaggedWords(list(tags.to_iob2(named, self._scheme)[0]), scores)

    def _object(self, text: str, places: raw_words.Spans, answer: TaggedWords) -> dict[str, Any]:
        words = [
            {
                "text": text[start:stop],
                "start": start,
                "end": stop,
                "tag": tag,
                "score": round(float(score), _DIGITS),
            }
            for (start, stop), tag, score in zip(places, answer.tags, answer.scores, strict=True)
        ]
        if self._scheme == "none":
            return {"text": text, "words": words, "entities": []}
        entities = []
        for first, last, kind in tags.entities(answer.tags):
            own = words[first : last + 1]
            start, stop = own[0]["start"], own[-1]["end"]
            entities.append(
                {
                    "type": kind,
                    "start": start,
                    "end": stop,
                    "text": text[start:stop],
                    "score": min(word["score"] for word in own),
                }
            )
        return {"text": text, "words": words, "entities": entities}


def as_line(row: dict[str, Any]) -> str:
    """A row as a line of JSON, other scripts as they are."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def _own_first_pieces(window: WordWindow) -> tuple[np.ndarray, np.ndarray]:
    """Places of the first pieces of the words that count in a window, and those words."""
    index, own = np.array(window.encoding.word_index), window.words
    counts = (index >= own.own_first) & (index < own.own_stop)
    places = np.flatnonzero(windows.first_pieces(index) & counts)
    return places, index[places]
