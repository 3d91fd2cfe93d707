import pytest

from xdistil_tf import layer_maps


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (4, 12, ((0, 0), (1, 3), (2, 6), (3, 9), (4, 12))),
        (4, 6, ((0, 0), (1, 2), (2, 3), (3, 5), (4, 6))),
        (6, 12, ((0, 0), (1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12))),
        (3, 12, ((0, 0), (1, 4), (2, 8), (3, 12))),
        (2, 12, ((0, 0), (1, 6), (2, 12))),
        (1, 1, ((0, 0), (1, 1))),
        (4, 2, ((0, 0), (1, 1), (2, 1), (3, 2), (4, 2))),
    ],
)
def test_uniform(student, teacher, expected):
    assert layer_maps.uniform(student, teacher) == expected


def test_uniform_always_joins_the_ends_and_never_turns_back():
    for student in range(1, 13):
        for teacher in range(1, 25):
            pairs = layer_maps.uniform(student, teacher)
            assert pairs[0] == (0, 0) and pairs[-1] == (student, teacher)
            layers = [pair[1] for pair in pairs]
            assert layers == sorted(layers)


def test_attention_of_tinybert_as_published():
    # One-based here; the code of TinyBERT counts 2, 5, 8, 11.
    pairs = layer_maps.resolve("uniform", 4, 12, "attention")
    assert pairs == ((1, 3), (2, 6), (3, 9), (4, 12))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("last", ((3, 6),)),
        ("top", ((0, 0), (1, 4), (2, 5), (3, 6))),
        ("bottom", ((0, 0), (1, 1), (2, 2), (3, 3))),
        ("skip", ((1, 2), (2, 4))),
    ],
)
def test_named_maps(name, expected):
    assert layer_maps.resolve(name, 3, 6, "hidden") == expected
    without_embeddings = tuple(pair for pair in expected if pair[0] > 0)
    assert layer_maps.resolve(name, 3, 6, "value") == without_embeddings


def test_explicit_pairs_count_from_the_top_where_negative():
    assert layer_maps.resolve([(0, 0), [-1, -7]], 4, 12, "hidden") == ((0, 0), (4, 6))


@pytest.mark.parametrize(
    ("layers", "output", "message"),
    [
        ("unifrom", "hidden", r"Unknown layer map.*'uniform'.*Did you mean 'uniform'\?"),
        (((5, 1),), "hidden", "layer of the student for output 'hidden'. Expected 0..4.*5"),
        (((1, 13),), "hidden", "layer of the teacher for output 'hidden'. Expected 0..12.*13"),
        (((0, 0),), "attention", "layer of the student for output 'attention'. Expected 1..4"),
        (((1, 3), (1, 3)), "hidden", "Expected at least one pair .* none twice"),
        ((), "hidden", "Expected at least one pair"),
    ],
)
def test_errors(layers, output, message):
    with pytest.raises(ValueError, match=message):
        layer_maps.resolve(layers, 4, 12, output)


@pytest.mark.parametrize("name", ["top", "bottom"])
def test_a_deeper_student_has_no_top_or_bottom(name):
    with pytest.raises(ValueError, match=f"{name!r} needs a teacher at least as deep.*uniform"):
        layer_maps.resolve(name, 6, 4, "hidden")


def test_skip_needs_two_layers_and_every_map_one():
    with pytest.raises(ValueError, match="at least 2 layers. Received: 1"):
        layer_maps.skip(1, 4)
    with pytest.raises(ValueError, match="Expected at least 1 in student and teacher"):
        layer_maps.last(0, 4)
