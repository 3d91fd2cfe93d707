"""Drawing languages by temperature: shares, fairness within a language, batches."""

import numpy as np
import pytest

from xdistil_tf.data.language_draw import LanguageDraw
from xdistil_tf.data.plan import Plan

LANGUAGES = np.array([b"en"] * 90 + [b"sw"] * 9 + [b"yo"])


def counts(numbers):
    return dict(zip(*np.unique(LANGUAGES[numbers], return_counts=True), strict=True))


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1, (90, 9, 1)), (2, (70, 22, 8)), (1e9, (34, 33, 33)), (0.5, (99, 1, 0))],
)
def test_languages_have_the_share_of_their_root(temperature, expected):
    draw = LanguageDraw(LANGUAGES, temperature)
    assert tuple(draw.sizes.values()) == expected
    numbers = draw(3)
    assert len(numbers) == len(LANGUAGES)
    assert tuple(counts(numbers).get(name, 0) for name in (b"en", b"sw", b"yo")) == expected


def test_all_records_of_a_language_come_equally_often():
    draw = LanguageDraw(LANGUAGES, 2, (7,))
    seen = np.zeros(len(LANGUAGES), int)
    for epoch in range(9):
        seen += np.bincount(draw(epoch), minlength=len(seen))
        for name in (b"en", b"sw", b"yo"):
            assert np.ptp(seen[LANGUAGES == name]) <= 1


def test_an_epoch_follows_from_seed_and_number_alone():
    draw = LanguageDraw(LANGUAGES, 2, (7,))
    late = draw(5)
    np.testing.assert_array_equal(late, LanguageDraw(LANGUAGES, 2, (7,))(5))
    assert not np.array_equal(late, LanguageDraw(LANGUAGES, 2, (8,))(5))
    assert not np.array_equal(late, draw(4))


def test_a_temperature_of_one_is_an_ordinary_epoch():
    np.testing.assert_array_equal(LanguageDraw(LANGUAGES, 1)(0), np.arange(len(LANGUAGES)))


def test_batches_hold_what_was_drawn():
    draw = LanguageDraw(LANGUAGES, 2, (7,))
    plan = Plan(np.arange(100) % 7 + 1, 8, seed=3, draw=draw)
    assert plan.steps_per_epoch == 13
    for epoch in (0, 1):
        steps = range(13 * epoch, 13 * (epoch + 1))
        numbers = np.sort(np.concatenate([plan.batch(step) for step in steps]))
        np.testing.assert_array_equal(numbers, draw(epoch))


def test_a_temperature_of_nothing_is_refused():
    with pytest.raises(ValueError, match="above 0. Received: 0"):
        LanguageDraw(LANGUAGES, 0)
