"""What is kept of tasks that are not settled, against a plain dict."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelkit._scheduling._unsettled import SIZE, Unsettled


class Model:
    """The same, as a dict."""

    def __init__(self):
        self.items = {}
        self.admitted = 0

    def admit(self, items):
        self.items.update(enumerate(items, self.admitted))
        self.admitted += len(items)

    def settle(self, indices):
        for index in indices:
            del self.items[index]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(0, 3 * SIZE)),
        st.tuples(st.just("range"), st.floats(0, 1), st.floats(0, 1)),
        st.tuples(st.just("some"), st.randoms(use_true_random=False), st.integers(1, 50)),
    ),
    max_size=12,
)


def longest_run(indices, at):
    """The range of indices from place ``at`` on that follow on from each other."""
    first = end = indices[at]
    while at < len(indices) and indices[at] == end:
        at, end = at + 1, end + 1
    return range(first, end)


@settings(max_examples=60, deadline=None)
@given(STEPS)
@pytest.mark.all
def test_it_knows_what_a_dict_would_know(steps):
    """Whatever is admitted and settled, in whatever order, by slices or one by one."""
    ours, model = Unsettled(), Model()
    for step, *how in steps:
        if step == "admit":
            items = [object() for _ in range(how[0])]
            ours.admit(items)
            model.admit(items)
        elif model.items:
            indices = list(model.items)
            if step == "range":
                run = longest_run(indices, int(how[0] * (len(indices) - 1)))
                chosen = run[: max(1, int(how[1] * len(run)))]
            else:
                chosen = how[0].sample(indices, min(how[1], len(indices)))
            ours.settle(chosen)
            model.settle(chosen)
        assert (len(ours), ours.admitted) == (len(model.items), model.admitted)
        assert list(ours) == list(model.items)
        assert all(ours[index] is item and index in ours for index, item in model.items.items())
    assert ours.admitted not in ours


def test_one_that_is_not_settled_holds_a_chunk_and_no_more():
    """A first task that runs as long as a million others costs no more memory than they do."""
    ours = Unsettled()
    for _ in range(20):
        ours.admit(range(SIZE))
    ours.settle(range(1, 20 * SIZE))
    assert len(ours._chunks) == 1
    assert list(ours) == [0]
    ours.settle((0,))
    assert not ours._chunks
    assert not ours


def test_an_item_goes_when_its_task_is_settled():
    """Not when its whole chunk is: items may be large."""

    class Thing:
        pass

    things = [Thing() for _ in range(10)]
    alive = [weakref.ref(thing) for thing in things]
    ours = Unsettled()
    ours.admit(things)
    del things
    ours.settle(range(8))
    ours.settle((9,))
    gc.collect()
    assert [number for number, thing in enumerate(alive) if thing()] == [8]


@pytest.mark.parametrize("indices", [(3,), range(3, 4), range(2 * SIZE), range(SIZE, SIZE + 10)])
def test_what_is_settled_twice_is_told(indices):
    """In a long range by the count of its chunk: when the rest of it is settled at the latest."""
    ours = Unsettled()
    ours.admit(range(3 * SIZE))
    ours.settle(indices)
    with pytest.raises(KeyError):
        ours.settle(indices)
        ours.settle([index for index in range(3 * SIZE) if index not in indices])
