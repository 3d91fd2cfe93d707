import numpy as np
import pytest

from xdistil_tf.data.plan import Plan

RANDOM = np.random.default_rng(0)
CASES = [
    # records, batch size, window, block
    (1, 1, 4, 2),
    (3, 8, 4, 2),
    (64, 8, 16, 4),
    (65, 8, 16, 4),
    (1000, 7, 50, 16),
    (1000, 32, 100000, 512),
    (777, 10, 1, 1),
]


def epoch_batches(plan, epoch=0):
    first = epoch * plan.steps_per_epoch
    return [plan.batch(first + step) for step in range(plan.steps_per_epoch)]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_an_epoch_holds_each_record_once_and_one_short_batch_at_most(case, shuffle):
    records, batch_size, window, block = case
    lengths = RANDOM.integers(2, 60, records)
    plan = Plan(lengths, batch_size, 1, shuffle, window=window, block=block)
    for epoch in range(2):
        batches = epoch_batches(plan, epoch)
        assert sorted(np.concatenate(batches)) == list(range(records))
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert 0 < len(batches[-1]) <= batch_size


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    lengths = RANDOM.integers(2, 60, 300)

    def order(seed, epoch):
        return np.concatenate(epoch_batches(Plan(lengths, 8, seed), epoch))

    first = order((3, 1), 2)
    np.testing.assert_array_equal(first, order((3, 1), 2))
    for seed, epoch in (((3, 1), 3), ((3, 2), 2), ((4, 1), 2)):
        assert not np.array_equal(first, order(seed, epoch))


def test_the_order_does_not_change_between_versions():
    batches = epoch_batches(Plan(np.arange(1, 11), 4, 7, window=8, block=2))
    assert [batch.tolist() for batch in batches] == [[6, 8, 7, 9], [2, 3, 4, 5], [1, 0]]


def test_batches_of_any_step_are_found_without_the_ones_before():
    lengths = RANDOM.integers(2, 60, 500)
    plan = Plan(lengths, 8, 5, window=64, block=16)
    forward = [plan.batch(step) for step in range(150)]
    fresh = Plan(lengths, 8, 5, window=64, block=16)
    for step in (149, 3, 70, 62, 63):
        np.testing.assert_array_equal(fresh.batch(step), forward[step])


def test_similar_lengths_share_a_batch():
    lengths = RANDOM.integers(2, 60, 4096)
    batches = epoch_batches(Plan(lengths, 32, 1))
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert padded < 1.12 * lengths.sum()


def test_equal_lengths_do_not_give_equal_batches_each_epoch():
    plan = Plan(np.full(64, 9), 8, 1)
    first, second = (
        {tuple(sorted(batch)) for batch in epoch_batches(plan, epoch)} for epoch in (0, 1)
    )
    assert not first & second


def test_reading_stays_within_few_blocks():
    lengths = RANDOM.integers(2, 60, 10000)
    plan = Plan(lengths, 10, 1, window=1000, block=100)
    window = np.concatenate([plan.batch(step) for step in range(100)])
    assert len(np.unique(window // 100)) == 10


def test_unshuffled_order_is_the_same_each_epoch():
    plan = Plan(RANDOM.integers(2, 60, 100), 8, shuffle=False)
    np.testing.assert_array_equal(plan.batch(2), plan.batch(2 + plan.steps_per_epoch))


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="batch_size of at least 1. Received: batch_size=0"):
        Plan([1, 2], 0)
    with pytest.raises(ValueError, match="at least one record. Received: none"):
        Plan([], 4)
