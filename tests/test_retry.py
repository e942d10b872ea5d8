"""Retry policies: ``Retry``, and ``tenacity.Retrying`` in its place."""

import random
from dataclasses import FrozenInstanceError, fields

import pytest
import tenacity
from fakes import Done, Fail, FakeRun, Script
from hypothesis import assume, given
from hypothesis import strategies as st

from parallelkit import Retry, Task, TaskExited, TaskTimeout, WorkerDied, _policies
from parallelkit._policies import TenacityPolicy, as_policy

ERROR = OSError("down")


def at_most(monkeypatch):
    """Make the jitter always choose the longest delay."""
    monkeypatch.setattr(_policies, "uniform", lambda most: most)


def delays(policy, error=ERROR, attempts=10):
    """The delay after each failed attempt, up to the first that is final."""
    found = []
    for number in range(1, attempts + 1):
        delay = policy.delay_after(number, error, 0.0)
        if delay is None:
            break
        found.append(delay)
    return found


# How often


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_there_are_as_many_extra_tries_as_asked_for(retries):
    """``Retry(n)`` allows n retries after the first attempt."""
    assert [0.0] * retries == delays(Retry(retries, delay=0))


@pytest.mark.parametrize(
    ("on", "error", "expected"),
    [
        (Exception, ValueError(), True),
        (OSError, ConnectionError(), True),
        (OSError, ValueError(), False),
        ((ValueError, OSError), TimeoutError(), True),
        ((ValueError, OSError), KeyError(), False),
        ((), ValueError(), False),
        (lambda error: "busy" in str(error), ValueError("busy"), True),
        (lambda error: "busy" in str(error), ValueError("broken"), False),
        (lambda error: [], ValueError(), False),
        (lambda error: [1], ValueError(), True),
        (TaskTimeout, TaskTimeout("late"), True),
        (TimeoutError, TaskTimeout("late"), True),
        (WorkerDied, WorkerDied("gone", exitcode=1), True),
        (BaseException, ValueError(), True),
    ],
)
def test_on_says_which_errors_are_tried_again(on, error, expected):
    """``on`` is types, as for ``isinstance``, or a predicate; it applies to our own errors, too."""
    assert expected == (Retry(1, on=on, delay=0).delay_after(1, error, 0.0) is not None)


@pytest.mark.parametrize("on", [SystemExit, (OSError, SystemExit), TaskExited, Exception])
def test_on_may_name_what_is_no_exception(on):
    """A SystemExit, which comes as a TaskExited, is retried by either name; another type is not."""
    run = FakeRun(Script({"a": [Fail(SystemExit(1)), Done(7)]}), ["a"], policy=Retry(1, on=on, delay=0))
    assert [(7, 2)] == [(outcome.value, outcome.attempts) for outcome in run.drive().outcomes]
    assert Retry(1, on=KeyboardInterrupt).delay_after(1, run.results.attempts[0].error, 0.0) is None


def test_a_predicate_is_not_asked_when_no_try_is_left():
    """A predicate is called only for errors that it decides about."""
    asked = []
    policy = Retry(1, on=lambda error: asked.append(error) or True, delay=0)
    policy.delay_after(1, ERROR, 0.0)
    policy.delay_after(2, ERROR, 0.0)
    assert [ERROR] == asked


# How late


def test_the_ceiling_of_the_delay_grows_by_the_factor_up_to_its_limit(monkeypatch):
    """The largest delay after attempt n is ``min(max_delay, delay * factor ** (n - 1))`` seconds."""
    at_most(monkeypatch)
    assert [0.1, 0.2, 0.4, 0.8] == delays(Retry(4))
    assert [2, 6, 18, 20, 20] == delays(Retry(5, delay=2, factor=3, max_delay=20))
    assert [5, 5, 5] == delays(Retry(3, delay=5, factor=1))
    assert [1, 1] == delays(Retry(2, delay=4, max_delay=1))


def test_chance_chooses_between_nothing_and_the_ceiling(monkeypatch):
    """Delays have full jitter: they are drawn from zero on."""
    asked = []
    monkeypatch.setattr(_policies, "uniform", lambda most: asked.append(most) or 0.0)
    delays(Retry(3, delay=1))
    assert [1.0, 2.0, 4.0] == asked


@pytest.mark.parametrize(
    ("drawn", "expected"), [(b"\0" * 7, 0.0), (b"\x80" + b"\0" * 6, 4.0), (b"\xff" * 7, 8.0)]
)
def test_chance_is_even(drawn, expected, monkeypatch):
    """What the system draws is scaled to the range from zero to the ceiling."""
    monkeypatch.setattr(_policies.os, "urandom", lambda size: drawn[:size])
    assert expected == pytest.approx(_policies.uniform(8.0))


def test_retries_leave_the_random_numbers_of_the_program_alone():
    """A program that has seeded ``random`` draws the same numbers, whether tasks in threads were tried again or not."""
    before = random.getstate()
    delays(Retry(3))
    assert before == random.getstate()


@given(
    number=st.integers(1, 10_000),
    delay=st.floats(0, 1e6),
    factor=st.floats(1, 1e6) | st.integers(1, 1000),
    max_delay=st.floats(0, 1e6),
)
def test_a_delay_is_never_longer_than_its_limit(number, delay, factor, max_delay):
    """A delay is always a number between 0 and ``max_delay``, whatever the factor, however many attempts."""
    assume(not delay > max_delay == 30)  # is refused: that is the default, so it was not asked for
    policy = Retry(10_000, delay=delay, factor=factor, max_delay=max_delay)
    assert 0 <= policy.delay_after(number, ERROR, 0.0) <= max_delay


@pytest.mark.parametrize("number", [1, 2, 5_000])
@pytest.mark.parametrize("zero", [0, 0.0])
@pytest.mark.parametrize("factor", [2, float("inf")])
def test_no_delay_is_no_delay_however_often(zero, number, factor):
    """``delay=0`` retries at once, even if the factor's power exceeds a float."""
    assert 0 == Retry(5_000, delay=zero, factor=factor).delay_after(number, ERROR, 0.0)


# What is no Retry


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"retries": -1}, ValueError, "retries must be at least 0, got -1"),
        ({"retries": 1.5}, TypeError, "retries must be an int, got 1.5"),
        ({"retries": True}, TypeError, "retries must be an int, got True"),
        ({"retries": None}, TypeError, "retries must be an int, got None"),
        ({"delay": -0.1}, ValueError, "delay must be at least 0, got -0.1"),
        ({"delay": float("nan")}, ValueError, "delay must be a number, got nan"),
        ({"delay": "1"}, TypeError, "delay must be a number, got '1'"),
        ({"factor": 0.5}, ValueError, "factor must be at least 1, got 0.5"),
        ({"factor": None}, TypeError, "factor must be a number, got None"),
        (
            {"delay": 60},
            ValueError,
            "delay must be at most max_delay, which is 30 s by default, got 60; set max_delay, too",
        ),
        ({"max_delay": -1}, ValueError, "max_delay must be at least 0, got -1"),
        ({"max_delay": False}, TypeError, "max_delay must be a number, got False"),
        ({"max_time": -1}, ValueError, "max_time must be at least 0, got -1"),
        ({"budget": -0.1}, ValueError, "budget must be at least 0, got -0.1"),
        ({"budget": "half"}, TypeError, "budget must be a number, got 'half'"),
        (
            {"on": "OSError"},
            TypeError,
            "on must be exception types .* or a function of the error, got 'OSError'",
        ),
        ({"on": int}, TypeError, "on must be exception types .* got <class 'int'>"),
        ({"on": (OSError, int)}, TypeError, "on must be exception types .* got "),
        ({"on": [OSError]}, TypeError, "on must be exception types .* got "),
        ({"on": None}, TypeError, "on must be exception types .* got None"),
    ],
)
def test_a_bad_value_names_argument_rule_and_value(options, kind, message):
    """A bad value is refused when the ``Retry`` is made, with the argument, the rule and the value."""
    with pytest.raises(kind, match=message):
        Retry(**{"retries": 1, **options})


def test_a_retry_is_a_value():
    """A Retry can be compared and hashed, and is immutable, so that several runs can share it."""
    assert Retry(2, delay=1) == Retry(2, delay=1)
    assert hash(Retry(2)) == hash(Retry(2))
    with pytest.raises(FrozenInstanceError):
        Retry(2).retries = 3
    with pytest.raises(TypeError):
        Retry(2, OSError)  # all but the number only by name


# The option `retries`


def test_an_int_is_short_for_a_retry():
    """An int is a number of retries with the default delays."""
    for field in fields(Retry):
        assert getattr(Retry(3), field.name) == getattr(as_policy(3), field.name), field.name


@pytest.mark.parametrize("none", [0, Retry(0)])
def test_no_retries_are_no_policy(none):
    """Without retries there is no policy to ask."""
    assert as_policy(none) is None


def test_without_retries_there_is_still_a_time():
    """``max_time`` without retries is still a policy: it bounds a task that is told to wait without having run."""
    policy = Retry(0, max_time=60)
    assert as_policy(policy) is policy
    assert policy.delay_after(1, ERROR, 0.0) is None


def test_a_retry_is_its_own_policy():
    """A Retry is used as it is."""
    policy = Retry(3, on=OSError)
    assert as_policy(policy) is policy


@pytest.mark.parametrize(
    ("retries", "kind", "message"),
    [
        (-1, ValueError, "retries must be at least 0, got -1"),
        (2.0, TypeError, "retries must be an int, a Retry or a tenacity.Retrying, got 2.0"),
        (True, TypeError, "retries must be .* got True"),
        (None, TypeError, "retries must be .* got None"),
        ("3", TypeError, "retries must be .* got '3'"),
        (Retry, TypeError, "retries must be .* got <class"),
    ],
)
def test_anything_else_is_no_policy(retries, kind, message):
    """Anything else is refused, with what can be given."""
    with pytest.raises(kind, match=message):
        as_policy(retries)


# tenacity


def tenacious(**options):
    policy = as_policy(tenacity.Retrying(**options))
    assert isinstance(policy, TenacityPolicy)
    return policy


def test_tenacity_stops_where_it_would():
    """``stop`` of tenacity counts attempts as in tenacity."""
    assert [0.0, 0.0] == delays(tenacious(stop=tenacity.stop_after_attempt(3)))


def test_tenacity_waits_as_long_as_it_would():
    """``wait`` of tenacity is evaluated for the failed attempt, and nothing sleeps."""
    waits = tenacity.wait_incrementing(start=1, increment=2)
    assert [1.0, 3.0, 5.0] == delays(tenacious(wait=waits, stop=tenacity.stop_after_attempt(4)))
    assert [7.0] * 3 == delays(tenacious(wait=tenacity.wait_fixed(7)), attempts=3)


def test_tenacity_retries_what_it_would():
    """``retry`` of tenacity gets the error itself, also in combinations."""
    policy = tenacious(
        retry=tenacity.retry_if_exception_type(OSError)
        & tenacity.retry_if_exception(lambda error: "busy" in str(error))
    )
    assert 0.0 == policy.delay_after(1, OSError("busy"), 0.0)
    assert policy.delay_after(1, OSError("broken"), 0.0) is None
    assert policy.delay_after(1, ValueError("busy"), 0.0) is None


def test_a_task_may_ask_tenacity_for_another_try():
    """The TryAgain of tenacity is retried whatever ``retry`` is about, until ``stop``."""
    policy = tenacious(retry=tenacity.retry_if_exception_type(OSError), stop=tenacity.stop_after_attempt(3))
    assert [0.0, 0.0] == delays(policy, tenacity.TryAgain())


def test_tenacity_may_be_switched_off():
    """A ``Retrying`` with ``enabled=False`` means no retries, as in tenacity."""
    try:
        retrying = tenacity.Retrying(enabled=False)
    except TypeError:
        pytest.skip("this tenacity cannot be switched off")
    assert as_policy(retrying) is None


@pytest.mark.parametrize("part", ["retry", "wait", "stop"])
def test_a_part_of_tenacity_that_must_be_awaited_is_refused(part):
    """A coroutine function in an ``AsyncRetrying`` is refused: its coroutine would count as true, so every value as bad."""

    async def answer(state): ...

    with pytest.raises(TypeError, match=f"{part} of retries must not be defined by 'async def'"):
        as_policy(tenacity.AsyncRetrying(**{part: answer}))


def test_tenacity_counts_from_the_first_attempt():
    """A ``stop`` by time counts from the first attempt, without the time in the queue."""
    policy = tenacious(stop=tenacity.stop_after_delay(10))
    assert 0.0 == policy.delay_after(1, ERROR, 9.0)
    assert policy.delay_after(1, ERROR, 10.0) is None


def test_tenacity_may_stop_before_a_wait_that_is_too_long():
    """A ``stop`` that looks at the coming wait gets it."""
    policy = tenacious(wait=tenacity.wait_fixed(3), stop=tenacity.stop_before_delay(10))
    assert 3.0 == policy.delay_after(1, ERROR, 6.0)
    assert policy.delay_after(1, ERROR, 8.0) is None


def test_a_wait_without_an_end_is_none():
    """An infinite wait makes the failure final at once."""
    script = Script({"a": [Fail(OSError("busy"))]})
    (failure,) = FakeRun(script, ["a"], policy=tenacious(wait=lambda state: float("inf"))).drive().outcomes
    assert "not tried again, since the wait would never end" in failure.error.__notes__[0]


def test_tenacity_never_sleeps_here():
    """The policy's own ``sleep`` and callbacks are not used."""

    def forbidden(*_):
        raise AssertionError("nobody may call this")

    names = ("sleep", "before", "after", "before_sleep", "retry_error_callback")
    policy = tenacious(wait=tenacity.wait_fixed(1), **dict.fromkeys(names, forbidden))
    assert 1.0 == policy.delay_after(1, ERROR, 0.0)


def test_tenacity_has_no_budget():
    """Options that only ``Retry`` has do not apply to a ``Retrying``."""
    policy = tenacious()
    assert (None, None) == (policy.budget, policy.max_time)


def test_tenacity_may_refuse_a_value():
    """``retry_if_result`` retries a value; if it stays, the failure is tenacity's RetryError."""
    policy = as_policy(
        tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda value: value is None),
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_fixed(2),
        )
    )
    script = Script({"a": [Done(None), Done(7)], "b": [Done(None), Done(None), Done(None)]})
    run = FakeRun(script, ["a", "b", "c"], policy=policy).drive()

    good, refused, plain = run.outcomes
    assert (7, 2) == (good.value, good.attempts)
    assert ("c", 1) == (plain.value, plain.attempts)
    assert isinstance(refused.error, tenacity.RetryError)
    assert (3, 4.0) == (refused.attempts, run.clock())


def test_only_tasks_of_that_policy_have_values_refused():
    """``retry_if_result`` in a Task's own ``retries`` is about its value alone; in those of the run, not about Tasks with others."""
    refuse = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda value: value is None), stop=tenacity.stop_after_attempt(1)
    )

    def oks(*policies, **options):
        tasks = [Task(lambda: None, retries=policy) for policy in policies]
        return [outcome.ok for outcome in FakeRun(None, tasks, **options).drive().outcomes]

    assert [False, True, True] == oks(refuse, 1, None)
    assert [False, True] == oks(None, 1, policy=as_policy(refuse))


def test_a_predicate_on_values_that_raises_costs_its_task_only():
    """What a predicate on values raises is its task's error, as in tenacity."""
    policy = as_policy(tenacity.Retrying(retry=tenacity.retry_if_result(lambda value: value["ok"])))
    script = Script({"a": [Done({})], "b": [Done({"ok": False})]})
    broken, plain = FakeRun(script, ["a", "b"], policy=policy).drive().outcomes
    assert KeyError is type(broken.error)
    assert {"ok": False} == plain.value
