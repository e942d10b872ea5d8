"""The ledger's columns: both ways of settling read the same, and nothing is lost."""

import pickle
from array import array
from itertools import pairwise

import pytest
from fakes import outcomes_of
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import Attempt, Failure, Success, TaskCancelled
from parallelkit._facts import Facts
from parallelkit._ledger import Ledger
from parallelkit._lost import Lost, cut_off
from parallelkit._marks import UNSET


def ledger_of(count, keys=None, *, began_at=0.0, completion=False):
    ledger = Ledger(Facts(began_at=began_at), completion=array("q") if completion else None)
    ledger.admit(keys, count, began_at)
    return ledger


def succeed(ledger, indices):
    """Settle these tasks, each with figures of its own."""
    values, workers = [f"value {index}" for index in indices], [f"worker {index % 3}" for index in indices]
    ends = [index + 0.75 for index in indices]
    ledger.succeed((indices, values, [index + 0.25 for index in indices], ends, workers))


def lost(error, number=1, started=1.0, ended=3.0, **more):
    return Lost(error, number, started, ended, "worker", **more)


# Two ways to settle


@given(st.data())
def test_both_ways_of_settling_agree(data):
    """A block of consecutive indices is written as slices, any other row by row, with the same outcomes."""
    count = data.draw(st.integers(1, 40))
    cuts = data.draw(st.sets(st.integers(1, count - 1)) if count > 1 else st.just(set()))
    edges = [0, *sorted(cuts), count]
    blocks = [range(first, end) for first, end in pairwise(edges)]
    in_slices, scattered = ledger_of(count, began_at=0.125), ledger_of(count, began_at=0.125)

    for block in data.draw(st.permutations(blocks)):
        succeed(in_slices, data.draw(st.sampled_from([block, tuple(block), list(block)])))
    order = data.draw(st.permutations(range(count)))
    for first in range(0, count, 7):
        succeed(scattered, order[first : first + 7])

    assert outcomes_of(in_slices) == outcomes_of(scattered)
    assert [Success(0, 0, "value 0", 1, 0.0, 0.125, 0.5, "worker 0")] == [in_slices.outcome(0)]
    assert in_slices.attempts() == scattered.attempts()


@pytest.mark.parametrize("indices", [(2, 1, 3), (1, 3, 2), (3, 2, 1), (1, 3), (1, 4, 3)])
def test_a_block_that_only_looks_like_neighbours_is_none(indices):
    """A block is written as slices only if all its indices are consecutive, not only the first and the last."""
    ledger = ledger_of(5)
    succeed(ledger, indices)
    assert {index: f"value {index}" for index in indices} == {i: ledger.outcome(i).value for i in indices}


def test_settling_leaves_the_other_rows_alone():
    """Settling a block leaves all other rows as they are."""
    ledger = ledger_of(6)
    succeed(ledger, (0, 5))
    succeed(ledger, (2, 3))
    assert [0, 2, 3, 5] == [index for index in range(6) if isinstance(ledger.values[index], str)]
    with pytest.raises(AssertionError, match="task 1 has no outcome yet"):
        ledger.outcome(1)


# Keys


def test_a_key_is_the_position_unless_one_was_given():
    """Without keys there is no column for them; once some tasks have keys, the others keep their positions."""
    ledger = ledger_of(2)
    assert (None, [0, 1]) == (ledger.keys, [ledger.key(index) for index in range(2)])

    ledger.admit(range(2, 4), 2, 0.0)
    assert ledger.keys is None

    ledger.admit(["e", UNSET], 2, 0.0)
    ledger.admit(None, 1, 0.0)
    assert [0, 1, 2, 3, "e", 5, 6] == ledger.keys == [ledger.key(index) for index in range(7)]


def test_positions_of_another_start_are_keys():
    """A range of keys that does not start at the rows' positions is stored as keys."""
    ledger = ledger_of(2, range(5, 7))
    assert [5, 6] == ledger.keys


# Failures, cancelled tasks, attempts


def test_a_failure_reads_as_it_was_noted():
    """Times of a failure count from the start of the run; text and stack are those of the attempt."""
    error = ValueError("no")
    ledger = ledger_of(1, ["a"], began_at=10.0)
    ledger.fail(0, lost(error, 3, 11.0, 13.5, text="Traceback …", stack="File …"))
    expected = Failure("a", 0, error, 3, 0.0, 1.0, 2.5, "worker", None, "Traceback …", "File …")
    assert expected == ledger.outcome(0)


def test_a_failure_that_never_began_says_so():
    """A failure that never began has no start, duration, attempt or worker."""
    ledger = ledger_of(1, began_at=10.0)
    ledger.fail(0, Lost(TypeError("cannot be pickled"), 0, None, 12.0, None))
    failure = ledger.outcome(0)
    assert (0, None, 0.0, None) == (failure.attempts, failure.started_at, failure.duration, failure.worker)


def test_the_text_of_an_error_is_made_from_its_traceback():
    """If an error has no traceback text, it is what Python would print, the chain included."""
    ledger = ledger_of(1)
    try:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        ledger.fail(0, lost(error))
    text = ledger.outcome(0).traceback
    assert text.startswith("Traceback (most recent call last):")
    assert "KeyError: 'missing'" in text
    assert text.endswith("ValueError: outer\n")


def test_an_error_whose_text_fails_is_named_by_its_type():
    """A ``__str__`` that raises costs only the text of the error."""

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("mute")

    ledger = ledger_of(1)
    ledger.fail(0, lost(Mute()))
    assert "Mute" in ledger.outcome(0).traceback


def test_a_cancelled_task_names_the_reason_and_its_last_error():
    """A TaskCancelled names the reason, and has the last attempt's error as its cause."""
    error, ledger = OSError("down"), ledger_of(2)
    ledger.stopped = "run_timeout of 3 s"
    ledger.cancel([0, 1], {1: lost(error, 2)})
    never, tried = ledger.outcome(0), ledger.outcome(1)
    assert isinstance(never.error, TaskCancelled)
    assert "run_timeout of 3 s" in str(never.error)
    assert (0, None, None) == (never.attempts, never.started_at, never.error.__cause__)
    assert (2, 1.0, 2.0, error) == (tried.attempts, tried.started_at, tried.duration, tried.error.__cause__)


def test_attempts_are_logged_once_each_by_their_start():
    """Every attempt is in the log once, under its number: failed ones, successes, final failures, and those cut off."""
    first, last, ledger = OSError("first"), OSError("last"), ledger_of(5, "abcde")
    ledger.try_again(0, lost(first, 1, 0.0, 1.0))
    ledger.succeed_again(0, 2)
    ledger.succeed(((0,), (7,), (4.0,), (5.0,), ("w",)))
    ledger.fail(1, lost(last, 1, 2.0, 3.0))
    ledger.fail(2, Lost(TypeError("never began"), 0, None, 9.0, None))
    waiting = lost(first, 1, 1.0, 1.5)
    ledger.try_again(3, waiting)
    ledger.stopped = "Ctrl-C"
    ledger.cancel([3, 4], {3: waiting, 4: cut_off(3.0, 8.0, "w", None)})

    attempts = ledger.attempts()

    assert [
        ("a", 1, 0.0, 1.0, OSError),
        ("d", 1, 1.0, 0.5, OSError),
        ("b", 1, 2.0, 1.0, OSError),
        ("e", 1, 3.0, 5.0, TaskCancelled),
        ("a", 2, 4.0, 1.0, type(None)),
        ("c", 0, None, 0.0, TypeError),
    ] == [(one.key, one.number, one.started_at, one.duration, type(one.error)) for one in attempts]
    assert Attempt("b", 1, 1, 2.0, 1.0, "worker", last) == attempts[2]


def test_an_attempt_that_was_cut_off_counts():
    """An attempt that a stop cuts off counts as one, with the error of the previous one as the cause."""
    before = lost(OSError("first"), 1, 0.0, 1.0)
    last = cut_off(3.0, 8.0, "w", before)
    assert (2, before.error) == (last.number, last.error)
    ledger = ledger_of(1)
    ledger.try_again(0, before)
    ledger.cancel([0], {0: last})
    assert [1, 2] == [attempt.number for attempt in ledger.attempts()]


def test_the_order_of_completion_is_kept_where_it_is_wanted():
    """The completion order of successes, failures and cancelled tasks is kept, if requested."""
    ledger = ledger_of(6, completion=True)
    succeed(ledger, (3, 1))
    ledger.fail(4, lost(OSError()))
    succeed(ledger, (0,))
    ledger.cancel([2, 5], {})
    assert [3, 1, 4, 0, 2, 5] == list(ledger.completion)


def test_marks_survive_pickling_as_themselves():
    """The mark of a failed row survives pickling."""
    ledger = ledger_of(3)
    ledger.fail(0, lost(OSError("gone")))
    ledger.cancel([1], {})
    copy = pickle.loads(pickle.dumps(ledger.sealed(lambda error: error)))
    assert all(mine is theirs for mine, theirs in zip(ledger.values, copy.values, strict=True))


def test_sealing_keeps_tracebacks_as_text():
    """Tracebacks, which cannot be pickled, are kept as text."""
    ledger = ledger_of(2)
    try:
        {}["missing"]
    except KeyError as error:
        ledger.fail(0, lost(error))
        ledger.stopped = "run_timeout"
        ledger.cancel([1], {1: lost(error, 2)})

    copy = pickle.loads(pickle.dumps(ledger.sealed(lambda error: error)))

    for index in (0, 1):
        assert "in test_sealing_keeps_tracebacks_as_text" in copy.outcome(index).traceback
        assert ledger.outcome(index).traceback == copy.outcome(index).traceback


def test_looking_does_not_change_what_is_seen():
    """Raising a failure's error repeatedly does not change the text of its traceback."""
    ledger = ledger_of(1)
    try:
        {}["missing"]
    except KeyError as error:
        ledger.fail(0, lost(error))
    before = ledger.outcome(0).traceback
    for _ in range(2):
        with pytest.raises(KeyError):
            ledger.outcome(0).unwrap()
    assert before == ledger.outcome(0).traceback


def test_keys_that_are_the_indices_are_not_kept():
    """Keys that equal the indices are not stored; 1.0 and True are other keys than 1."""
    ledger = Ledger()
    ledger.admit([UNSET, UNSET], 2, 0.0)
    ledger.admit([2, UNSET], 2, 0.0)
    assert ledger.keys is None
    ledger.admit([4.0], 1, 0.0)
    assert [0, 1, 2, 3, 4.0] == ledger.keys
    assert float is type(ledger.key(4))
