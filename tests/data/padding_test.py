import numpy as np

from xdistil_tf.data.padding import pad_batch


def test_texts_are_padded_to_the_longest():
    batch = pad_batch([[2, 7, 3], [2, 3]], [[0, 1, 1], [0, 0]])
    np.testing.assert_array_equal(batch["input_ids"], [[2, 7, 3], [2, 3, 0]])
    np.testing.assert_array_equal(batch["input_mask"], [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(batch["segment_ids"], [[0, 1, 1], [0, 0, 0]])
    assert {values.dtype for values in batch.values()} == {np.dtype("int32")}


def test_no_text_is_a_batch_too():
    assert pad_batch([], [])["input_ids"].shape == (0, 1)
