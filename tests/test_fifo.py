"""The queue of an ordinary run, against a plain list; and attempts in columns, against a list of tuples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit._executors._tickets import FirstTries, indices_of, items_of, shortest_timeout
from parallelkit._scheduling._fifo import Fifo


class Model:
    def __init__(self):
        self.again, self.queue = [], []

    def pop(self, room):
        due = (self.again + self.queue)[:room]
        self.queue = self.queue[max(0, room - len(self.again)) :]
        self.again = self.again[room:]
        return due


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("firsts"), st.integers(1, 9)),
            st.tuples(st.just("others"), st.integers(0, 4)),
            st.tuples(st.just("again")),
            st.tuples(st.just("pop"), st.integers(0, 12)),
        ),
        max_size=20,
    )
)
def test_first_in_first_out_and_second_tries_before_all(steps):
    """Whatever is pushed, in columns or one by one, and however much is popped at a time."""
    ours, model, first = Fifo(), Model(), 0
    for number, (step, *how) in enumerate(steps, 1000):
        if step == "firsts":
            tickets = FirstTries(first, [f"item {first + n}" for n in range(how[0])], 5.0)
            ours.push(tickets)
            model.queue += tickets
            first += how[0]
        elif step == "others":
            tickets = [(first + n, 1, "its own", 3.0) for n in range(how[0])]
            ours.push(tickets)
            model.queue += tickets
            first += how[0]
        elif step == "again":
            again = (number, 2, "again", None)
            ours.push_again(again)
            model.again.append(again)
        else:
            assert list(ours.pop(0.0, how[0])) == model.pop(how[0])
    assert list(ours.pop(0.0, 1000)) == model.pop(1000)
    assert not ours.pop(0.0, 1000)


def test_what_is_popped_is_in_columns_where_it_can_be():
    """Also what was pushed in parts, if they follow on from each other."""
    fifo = Fifo()
    fifo.push(FirstTries(0, ["a", "b"], 1.0))
    fifo.push(FirstTries(2, ["c"], 1.0))
    due = fifo.pop(0.0, 3)
    assert isinstance(due, FirstTries)
    assert (due.indices, due.items, due.timeout) == (range(3), ["a", "b", "c"], 1.0)


def test_columns_are_a_sequence_of_tickets():
    """Whoever does not know of columns sees plain tuples."""
    tickets = FirstTries(7, ["a", "b", "c"], 2.0)
    plain = [(7, 1, "a", 2.0), (8, 1, "b", 2.0), (9, 1, "c", 2.0)]
    assert (list(tickets), len(tickets)) == (plain, 3)
    assert [tickets[at] for at in (0, 2, -1)] == [plain[0], plain[2], plain[2]]
    for part in (slice(1, None), slice(0, 2), slice(1, 2), slice(3, None), slice(0, -1)):
        assert list(tickets[part]) == plain[part]
    with pytest.raises(IndexError):
        tickets[3]


@pytest.mark.parametrize("timeout", [2.0, None])
def test_questions_are_answered_alike_for_both_forms(timeout):
    """The short way for columns gives what the long way gives."""
    tickets = FirstTries(7, ["a", "b"], timeout)
    for ask in (items_of, indices_of, shortest_timeout):
        assert list_of(ask(tickets)) == list_of(ask(list(tickets)))
    assert shortest_timeout([(0, 1, None, None), (1, 1, None, 3.0)]) == 3.0


def list_of(answer):
    return answer if isinstance(answer, float) else list(answer)
