"""The language of `synthetic`: review-like sentences with a known opinion.

The words are always the same, a few hundred real ones and many invented ones; what is drawn from
them depends on the random source alone.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Iterator, Sequence

TOPICS = ("cinema", "food", "hotels", "books", "devices", "concerts", "museums", "travel")
LABELS = {2: ("negative", "positive"), 3: ("negative", "neutral", "positive"), 8: TOPICS}
LABEL_NOISE = 0.02


class Grammar:
    """Draws sentences from a random source; equal sources give equal sentences."""

    def __init__(self, source: random.Random):
        self._source = source
        self._home = (False, 0)  # The polarity and manner of the words in use.

    def sentence(self, topic: int, label: str, manner: int | None = None) -> str:
        """One sentence about a topic whose label is `negative`, `neutral` or `positive`.

        Words of the label's polarity are mostly of one manner: the given one, or any.
        """
        if manner is None:
            manner = self._source.randrange(_MANNERS)
        self._home = (label == "positive", manner)
        draw = self._source.random()
        if label == "neutral":
            body = self._neutral(topic)
        else:
            body = self._told(topic, label == "positive")
        if draw < 0.15:
            return f"{self._fact(topic)} . {body}"
        if draw < 0.30:
            return f"{body} , and {self._fact(topic)}"
        return body

    def document(self) -> list[str]:
        """Sentences of one topic, and mostly of one label; some end in a verdict."""
        topic = self._source.randrange(len(_TOPICS))
        label = self._source.choice(LABELS[2])
        other = LABELS[2][label == "negative"]
        return [
            self._with_verdict(topic, label if self._source.random() < 0.9 else other)
            for _ in range(self._source.randint(4, 10))
        ]

    def _with_verdict(self, topic: int, label: str) -> str:
        sentence = self.sentence(topic, label)
        if self._source.random() >= 0.5:
            return sentence
        return f"{sentence} . in short , {self._source.choice(_VERDICTS[label == 'positive'])}"

    def labelled(self, label: str) -> str:
        """One sentence of that label: an opinion about any topic, or any opinion about a topic."""
        if label not in TOPICS:
            return self.sentence(self._source.randrange(len(TOPICS)), label)
        topic = TOPICS.index(label)
        text = self.sentence(topic, self._source.choice(LABELS[2]))
        if self._source.random() >= 0.4:
            return text
        other = (topic + self._source.randrange(1, len(TOPICS))) % len(TOPICS)
        aside = self._distraction(other, self._source.random() < 0.5)
        return f"{aside} . {text}" if self._source.random() < 0.5 else f"{text} . {aside}"

    def balanced(self, count: int, labels: Sequence[str]) -> list[str]:
        """So many labels in random order, each equally often."""
        drawn = [labels[position % len(labels)] for position in range(count)]
        self._source.shuffle(drawn)
        return drawn

    def noisy(self, label: str, labels: Sequence[str]) -> str:
        """The label, or rarely another one."""
        if self._source.random() >= LABEL_NOISE:
            return label
        return self._source.choice([other for other in labels if other != label])

    def pair(self) -> tuple[str, str, float]:
        """Two texts and how much they say the same, from 0 to 5."""
        source = self._source
        topic = source.randrange(len(_TOPICS))
        same_topic = source.random() < 0.75
        same_thing = same_topic and source.random() < 0.65
        same_opinion = source.random() < 0.5
        same_fact = same_topic and source.random() < 0.5
        step = source.randrange(1, len(_TOPICS))
        topic_b = topic if same_topic else (topic + step) % len(_TOPICS)
        things = [self._noun(topic), self._noun(topic_b)]
        while not same_thing and things[0] == things[1]:
            things[1] = self._noun(topic_b)
        positive = source.random() < 0.5
        facts = [self._fact(topic), self._fact(topic_b)]
        texts = [
            self._with_fact(
                self._clause(
                    things[0 if same_thing else side], positive ^ bool(side and not same_opinion)
                ),
                facts[0 if same_fact else side],
            )
            for side in (0, 1)
        ]
        score = same_topic + 1.5 * same_thing + 1.5 * same_opinion + same_fact
        noise = source.uniform(-0.3, 0.3)
        return texts[0], texts[1], min(5.0, max(0.0, score + noise))

    def _with_fact(self, clause: str, fact: str) -> str:
        return f"{fact} , and {clause}" if self._source.random() < 0.5 else f"{clause} . {fact}"

    def _told(self, topic: int, positive: bool) -> str:
        """An opinion of the writer, perhaps beside opinions that do not count."""
        draw = self._source.random()
        clause = self._clause(self._noun(topic), positive)
        if draw < 0.30:
            return clause
        if draw < 0.84:
            return f"{clause} and {self._clause(self._noun(topic), positive)}"
        contrary = self._clause(self._noun(topic), not positive)
        if draw < 0.90:
            return f"{contrary} , but {clause}"
        if draw < 0.92:
            return f"although {contrary} , {clause}"
        if draw < 0.94:
            return f"{clause} even though {contrary}"
        distraction = self._distraction(topic, self._source.random() < 0.5)
        return f"{distraction} . {clause}" if draw < 0.97 else f"{clause} . {distraction}"

    def _neutral(self, topic: int) -> str:
        """Facts, opinions of others, or an opinion that is withheld."""
        draw = self._source.random()
        if draw < 0.35:
            return self._fact(topic)
        if draw < 0.65:
            return self._distraction(topic, self._source.random() < 0.5)
        both = [self._adjective(True), self._adjective(False)]
        self._source.shuffle(both)
        return f"the {self._noun(topic)} was neither {both[0]} nor {both[1]}"

    def _clause(self, noun: str, positive: bool) -> str:
        """An opinion about a thing; negated, it uses the words of the other polarity."""
        source = self._source
        negated = source.random() < 0.10
        spoken = positive ^ negated
        form = source.random()
        if form < 0.28:
            who = source.choice(_NOBODY if negated else _WE)
            return f"{who} {self._verb(spoken)} the {noun}"
        quality = self._quality(spoken, negated)
        if form < 0.42 and not negated:
            return f"what a {quality} {noun}" if form < 0.35 else f"it was a {quality} {noun}"
        copula = "was" if negated else source.choice(_COPULAS)
        no = f" {source.choice(_NEGATIONS)}" if negated else ""
        return f"the {noun} {copula}{no} {quality}"

    def _quality(self, positive: bool, negated: bool) -> str:
        source = self._source
        words = self._adjective(positive)
        if source.random() < 0.45:
            words += f" {'or' if negated else 'and'} {self._adjective(positive)}"
        return f"{source.choice(_DEGREES)} {words}" if source.random() < 0.3 else words

    def _adjective(self, positive: bool) -> str:
        return _ADJECTIVES[positive][self._manner(positive)].draw(self._source)

    def _verb(self, positive: bool) -> str:
        return _VERBS[positive][self._manner(positive)].draw(self._source)

    def _manner(self, positive: bool) -> int:
        polarity, manner = self._home
        if positive == polarity and self._source.random() < 0.2:
            return manner
        return self._source.randrange(_MANNERS)

    def _distraction(self, topic: int, positive: bool) -> str:
        """An opinion that does not count: of others, or about another thing."""
        source = self._source
        noun, quality = self._noun(topic), self._quality(positive, False)
        return source.choice(_DISTRACTIONS).format(
            noun=noun,
            quality=quality,
            verb=self._verb(positive),
            kin=source.choice(_KIN),
        )

    def _fact(self, topic: int) -> str:
        source = self._source
        nouns, verbs, _ = _TOPICS[topic]
        return source.choice(_FACTS).format(
            name=_NAMES.draw(source),
            kin=source.choice(_KIN),
            verb=verbs.draw(source),
            noun=self._noun(topic),
            other=nouns.draw(source),
            plain=_PLAIN.draw(source),
            day=source.choice(_DAYS),
        )

    def _noun(self, topic: int) -> str:
        nouns, _, modifiers = _TOPICS[topic]
        noun = nouns.draw(self._source)
        if self._source.random() < 0.25:
            return f"{modifiers.draw(self._source)} {noun}"
        return noun


class _Zipf:
    """Words drawn with a frequency that falls with their rank."""

    def __init__(self, words: Sequence[str], exponent: float = 1.0, offset: float = 2.0):
        self.words = tuple(words)
        weights = ((rank + offset) ** -exponent for rank in range(1, len(words) + 1))
        self._cumulative = list(itertools.accumulate(weights))

    def draw(self, source: random.Random) -> str:
        place = source.random() * self._cumulative[-1]
        return self.words[min(bisect.bisect(self._cumulative, place), len(self.words) - 1)]


def vocabulary() -> frozenset[str]:
    """All content words that can occur."""
    lists = [*itertools.chain(*_ADJECTIVES, *_VERBS, *_TOPICS), _NAMES, _PLAIN]
    return frozenset(itertools.chain.from_iterable(one.words for one in lists))


def _invented(source: random.Random) -> Iterator[str]:
    """Pronounceable words of two or three syllables, each once."""
    seen: set[str] = set()
    while True:
        syllables = (
            source.choice("b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl st tr".split())
            + source.choice("a e i o u".split())
            for _ in range(2 + (source.random() < 0.4))
        )
        word = "".join(syllables) + source.choice("l m n r s t x".split())
        if word not in seen:
            seen.add(word)
            yield word


_INVENTED = _invented(random.Random("words"))


def _list(words: str, invented: int, ending: str = "", exponent: float = 1.0) -> _Zipf:
    """Real words first, the commonest; then invented ones."""
    coined = (next(_INVENTED) + ending for _ in range(invented))
    return _Zipf([*words.split(), *coined], exponent)


# Both polarities (index 0 is negative, 1 positive), each in several manners: the taste, the looks,
# the mood, the mind, the make of a thing. Writers keep to a manner, so its words stand together.
_ADJECTIVES = (
    (
        _list("bad bland stale awful", 20, exponent=0.5),
        _list("ugly shabby messy dull", 20, exponent=0.5),
        _list("annoying unpleasant dreadful horrible", 20, exponent=0.5),
        _list("boring tedious confusing weak", 20, exponent=0.5),
        _list("poor clumsy mediocre terrible", 20, exponent=0.5),
    ),
    (
        _list("good fresh fine superb", 20, exponent=0.5),
        _list("beautiful elegant lovely gorgeous", 20, exponent=0.5),
        _list("pleasant charming delightful wonderful", 20, exponent=0.5),
        _list("brilliant clever memorable impressive", 20, exponent=0.5),
        _list("great perfect splendid excellent", 20, exponent=0.5),
    ),
)
_VERBS = (
    tuple(_list(word, 3, "ed") for word in "hated disliked regretted mocked cursed".split()),
    tuple(_list(word, 3, "ed") for word in "enjoyed admired loved praised treasured".split()),
)
_MANNERS = 5
# How a writer sums up; only the corpus has such endings.
_VERDICTS = (
    ("disappointing", "forgettable", "avoidable"),
    ("recommended", "worthwhile", "unmissable"),
)
_NAMES = _list("anna peter maria john lucy david emma paul clara henry julia simon", 14)
_PLAIN = _list(
    "new old large small wooden green blue red round square nearby local second first last other "
    "grey quiet",
    10,
)
_TOPICS = tuple(
    (
        _list(nouns, 40, exponent=0.5),
        _list(verbs, 14, "ed", exponent=0.5),
        _list("", 40, exponent=0.5),
    )
    for nouns, verbs in (
        (
            "film actor plot scene director script ending soundtrack dialogue story cast camera "
            "comedy trailer hero villain costume drama sequel screenplay",
            "watched filmed reviewed streamed directed rented",
        ),
        (
            "soup waiter menu dessert chef duck bread sauce salad kitchen wine steak breakfast "
            "pasta starter fish cheese table cake terrace",
            "ordered tasted cooked served shared finished",
        ),
        (
            "room hotel lobby bed shower pool balcony reception pillow staff view towel elevator "
            "garden carpet sauna porter bathroom window corridor",
            "booked entered cleaned left found visited",
        ),
        (
            "book novel chapter author narrator poem cover preface prose character essay diary "
            "library page volume translation editor paragraph title index",
            "read opened borrowed printed quoted closed",
        ),
        (
            "phone screen battery keyboard speaker charger laptop printer cable tablet button "
            "headset software menu update sensor lens device router case",
            "bought charged unpacked repaired returned tested",
        ),
        (
            "concert singer band drummer album song guitar chorus stage violin choir melody "
            "orchestra encore ticket piano festival lyric rhythm audience",
            "heard played recorded attended performed rehearsed",
        ),
        (
            "museum statue painting gallery guide exhibit portrait sculpture tour archive curator "
            "castle fresco cathedral hall vase mosaic tapestry sketch courtyard",
            "saw photographed passed studied painted explored",
        ),
        (
            "train driver seat station ticket journey platform bus ferry cabin conductor route "
            "airport flight pilot taxi harbour coach timetable luggage",
            "took missed boarded drove awaited crossed",
        ),
    )
)
_WE = ("we", "i", "everyone", "my family", "most of us", "the children", "all of us")
_NOBODY = ("nobody", "hardly anyone", "none of us", "few people", "no one here")
_KIN = (
    "my sister",
    "my brother",
    "a friend",
    "the neighbours",
    "my boss",
    "our guide",
    "her uncle",
)
_DAYS = ("monday", "tuesday", "friday", "sunday", "the weekend", "our last day", "a rainy morning")
_COPULAS = ("was", "was", "was", "seemed", "felt", "looked", "turned out", "remained")
_NEGATIONS = ("not", "not", "never", "hardly", "far from", "anything but", "by no means")
_DEGREES = ("very", "really", "so", "quite", "truly", "extremely", "rather", "absolutely")
_DISTRACTIONS = (
    "the {noun} next door was {quality}",
    "{kin} had promised us a {quality} {noun}",
    "{kin} once {verb} another {noun}",
    "the {noun} of last year was {quality}",
    "other people called the {noun} {quality}",
    "elsewhere you find a {quality} {noun}",
)
_FACTS = (
    "{name} {verb} the {noun} on {day}",
    "{kin} {verb} the {plain} {noun}",
    "the {noun} is beside the {plain} {other}",
    "we {verb} the {noun} with {name}",
    "{name} asked about the {plain} {noun}",
    "there was a {plain} {noun} and a {other}",
)
