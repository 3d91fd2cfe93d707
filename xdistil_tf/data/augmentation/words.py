"""The words of a text that may be replaced: where they stand, and which pieces they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from xdistil_tf.data.tokenizer import Tokenizer

# Function words, and what apostrophes leave of them; wh-words may be replaced, as published.
STOP_WORDS = frozenset(
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself "
    "she her hers herself it its itself they them their theirs themselves this that these those "
    "am is are was were be been being have has had having do does did doing a an the and but if "
    "or because as until while of at by for with about against between into through during before "
    "after above below to from up down in out on off over under again further then once here "
    "there all any both each few more most other some such no nor not only own same so than too "
    "very s t can will just don should now d ll m o re ve y ain aren couldn didn doesn hadn hasn "
    "haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn".split()
)


@dataclasses.dataclass(frozen=True, slots=True)
class Word:
    """A word of a text.

    Attributes:
      start, stop: Its characters in the text.
      text: What stands there.
      first, pieces: Its pieces among those of the text, without special tokens.
    """

    start: int
    stop: int
    text: str
    first: int
    pieces: int

    @property
    def replaceable(self) -> bool:
        """Letters alone, and no function word: digits and punctuation stay."""
        return self.text.isalpha() and self.text.lower() not in STOP_WORDS


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A text with the ids of its pieces and its words."""

    text: str
    ids: tuple[int, ...]
    words: tuple[Word, ...]


def read_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Text]:
    """Tokenizes texts without special tokens, on all cores."""
    encodings = tokenizer.backend.encode_batch(list(texts), add_special_tokens=False)
    return [
        Text(text, tuple(one.ids), tuple(_words(text, one)))
        for text, one in zip(texts, encodings, strict=True)
    ]


def _words(text: str, encoding) -> Iterator[Word]:
    """Neighbouring pieces of one word; a piece of nothing belongs to none."""
    first, places = None, list(encoding.word_ids)
    for place in range(len(places) + 1):
        ends = place == len(places) or first is None or places[place] != places[first]
        if first is not None and ends:
            start, stop = encoding.offsets[first][0], encoding.offsets[place - 1][1]
            # Byte-level pieces may begin with the space before the word.
            while start < stop and text[start].isspace():
                start += 1
            if start < stop:
                yield Word(start, stop, text[start:stop], first, place - first)
        if place < len(places) and ends:
            first = place if places[place] is not None else None
