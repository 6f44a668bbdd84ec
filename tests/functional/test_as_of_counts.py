import numpy as np
from hypothesis import given, strategies as st

from lis_lightning.functional.as_of_counts import as_of, lexical_order

logs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=40)


@given(logs)
def test_as_of_counts_strictly_earlier_events_only(rows):
    keys, times, labels = (np.array(column) for column in zip(*rows, strict=True))
    counts, inverted = as_of(keys, times, np.stack([labels, 1 - labels]))
    assert inverted.count is counts.count
    for index in range(keys.size):
        before = (keys == keys[index]) & (times < times[index])
        assert counts.count[index] == before.sum()
        assert counts.positives[index] == labels[before].sum()
        assert inverted.positives[index] == (1 - labels[before]).sum()


columns = st.one_of(
    st.lists(st.integers(-3, 3), min_size=6, max_size=6).map(np.array),
    st.lists(st.integers(-(2**62), 2**62), min_size=6, max_size=6).map(np.array),
    st.lists(st.sampled_from([-(2**63), 0, 2**63 - 1]), min_size=6, max_size=6).map(np.array),
    st.lists(st.integers(0, 1), min_size=6, max_size=6).map(lambda values: np.array(values, np.int8)),
    st.lists(st.floats(-2, 2), min_size=6, max_size=6).map(np.array),
)


@given(st.lists(columns, min_size=1, max_size=5))
def test_lexical_order_is_that_of_lexsort(keys):
    np.testing.assert_array_equal(lexical_order(*keys), np.lexsort(keys[::-1]))


def test_lexical_order_of_nothing_is_nothing():
    assert lexical_order(np.zeros(0, int), np.zeros(0)).size == 0


def test_rates_are_smoothed_to_the_prior():
    (counts,) = as_of(np.array([0, 0]), np.array([1, 2]), np.array([[1, 1]]))
    np.testing.assert_allclose(counts.rate(0.4), [0.4, (1 + 5 * 0.4) / 6])
