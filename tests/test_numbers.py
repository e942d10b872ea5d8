"""Numbers that a user gives: one rule each for integers, numbers and seconds, wherever they are given."""

from concurrent.futures import Executor, Future
from decimal import Decimal
from fractions import Fraction

import pytest

from parallelkit import (
    ConcurrencyLimit,
    ProcessExecutor,
    RateLimit,
    Retry,
    Task,
    ThreadExecutor,
    run_parallel,
)
from parallelkit._numbers import check_number
from parallelkit._options import check_options
from parallelkit._policies import as_policy
from parallelkit.http import fetch, retries_for

numpy = pytest.importorskip("numpy", reason="installed with the test extra")


class Three:
    """An integer only by its ``__index__``."""

    def __index__(self):
        return 3

    def __repr__(self):
        return "Three()"


def width(kind):
    """A number as the width of an executor."""

    def make(value):
        with kind(value) as executor:
            return executor._max_workers

    return make


def option(name):
    """A number as an option of a run."""
    return lambda value: getattr(check_options({name: value}), name)


def opaque(call):
    """A number in a place that does not show it again."""

    def make(value):
        call(value)
        return 3 if isinstance(value, Three) else float(value)

    return make


COUNTS = {
    "max_workers": option("max_workers"),
    "buffersize": option("buffersize"),
    "max_failures": option("max_failures"),
    "retries": lambda value: Retry(value).retries,
    "calls": lambda value: RateLimit(value, per=1).calls,
    "n": lambda value: ConcurrencyLimit(value).n,
    "max_workers of threads": width(ThreadExecutor),
    "max_workers of processes": width(ProcessExecutor),
    "max_tasks_per_child": opaque(lambda value: ProcessExecutor(1, max_tasks_per_child=value).shutdown()),
    "per_host": opaque(lambda value: fetch([], per_host=value)),
    "max_bytes": opaque(lambda value: fetch([], max_bytes=value)),
}

counts = pytest.mark.parametrize("name", COUNTS)


@counts
def test_whatever_is_whole_is_a_count(name):
    """Everything with an ``__index__``, such as NumPy integers, is a count."""
    assert [3, 3, 3] == [COUNTS[name](value) for value in (3, numpy.int64(3), Three())]


@counts
@pytest.mark.parametrize("value", [2.0, "2", True, numpy.True_, numpy.array([2, 3]), Fraction(2), [2]])
def test_what_is_not_whole_is_no_count(name, value):
    """Neither a float, even without a fraction, nor a bool is a count."""
    argument = name.partition(" ")[0]
    with pytest.raises((TypeError, ValueError), match=rf"^{argument} must be .* got ") as caught:
        COUNTS[name](value)
    assert TypeError is caught.type or name == "max_failures", "which is a number, too"


@counts
def test_a_count_is_above_nothing(name):
    """A count must be positive, or for ``retries`` not negative; the message shows a plain number, whatever kind was given."""
    least, wrong = ("at least 0", -1) if name == "retries" else ("greater than 0", 0)
    with pytest.raises(ValueError, match=f"must be {least}, got {wrong}($|;)"):
        COUNTS[name](numpy.int64(wrong))


def test_a_count_is_given_on_as_an_int():
    """A count is converted to an int, so that the rest of the code need not know other kinds."""
    retry, limit = (
        Retry(numpy.int64(2), delay=numpy.float32(0.5)),
        RateLimit(numpy.int8(2), per=numpy.int8(100)),
    )
    numbers = (retry.retries, retry.delay, limit.calls, limit.per, ConcurrencyLimit(numpy.uint8(1)).n)
    assert [int, float, int, int, int] == [type(number) for number in numbers]
    assert "Retry(retries=2, " in repr(retry)
    assert 5 == as_policy(numpy.int64(5)).retries


SECONDS = {
    "timeout": option("timeout"),
    "run_timeout": option("run_timeout"),
    "timeout of a task": lambda value: Task(abs, timeout=value).timeout,
    "per": lambda value: RateLimit(1, per=value).per,
    "timeout of an executor": opaque(lambda value: ThreadExecutor(1, timeout=value).shutdown()),
    "connect_timeout": opaque(lambda value: fetch([], connect_timeout=value)),
    "read_timeout": opaque(lambda value: fetch([], read_timeout=value)),
}
WAITS = {
    name: lambda value, name=name: getattr(Retry(1, **{name: value}), name)
    for name in ("delay", "factor", "max_delay", "max_time", "budget")
}

times = pytest.mark.parametrize("name", [*SECONDS, *WAITS])


@times
@pytest.mark.parametrize("value", [3, 2.5, numpy.int64(3), numpy.float64(2.5), Fraction(5, 2), Three()])
def test_every_real_number_is_a_time(name, value):
    """Every real number, such as a Fraction, is a time, and is converted to an int or a float."""
    result = {**SECONDS, **WAITS}[name](value)
    assert (3 if isinstance(value, Three) else float(value)) == result
    assert type(result) in (int, float)


@times
@pytest.mark.parametrize("value", ["5", True, Decimal(5), 1j, [5], numpy.array([1.0, 2.0])])
def test_what_is_no_real_number_is_no_time(name, value):
    """Whatever is not a real number is not a time, nor is a Decimal, which cannot be added to a float."""
    argument = name.partition(" ")[0]
    with pytest.raises(TypeError, match=f"^{argument} must be a number( of seconds)?, got "):
        {**SECONDS, **WAITS}[name](value)


@times
@pytest.mark.parametrize(
    "value", [-1, numpy.float64(-0.5), Fraction(-1, 2), float("nan"), numpy.float32("nan")]
)
def test_no_time_is_negative_or_nan(name, value):
    """No time, or other number of that kind, may be negative or NaN."""
    with pytest.raises(ValueError, match=r"must be (a number.*|greater than 0|at least [01]), got"):
        {**SECONDS, **WAITS}[name](value)


def test_a_fraction_is_a_timeout_all_the_way():
    """A Fraction works as a timeout, and the error of an overdue task shows it."""
    from threading import Event

    hang = Event()
    results = run_parallel(lambda item: hang.wait(30), [1], timeout=Fraction(1, 50))
    hang.set()
    assert "task 0 ran longer than its timeout of 0.02 s" in str(results.failures[0].error)


def test_a_share_of_failures_may_be_of_any_kind():
    """``max_failures`` may be a share of any kind of number: what is not an integer is a share."""
    assert [0.25, 0.25] == [option("max_failures")(share) for share in (numpy.float32(0.25), Fraction(1, 4))]


@pytest.mark.parametrize("number", [10**400, Fraction(10**400 + 1, 3)])
def test_a_number_must_not_be_too_large_for_a_float(number):
    """A priority, say, that is beyond all floats is refused in a message that does not quote it."""
    with pytest.raises(ValueError, match="priority must be a number that a float can hold"):
        check_number("priority", number)


def test_a_foreign_pool_may_say_its_width_in_any_whole_number():
    """A foreign pool's width may be any kind of integer, as ``max_workers`` may."""

    class Pool(Executor):
        _max_workers = numpy.int64(2)

        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    assert [1, 4] == run_parallel(pow, [(1, 2), (2, 2)], star=True, executor=Pool()).values()


def test_retries_of_numpy_are_those_of_fetch_too():
    """A NumPy integer as ``retries`` of ``fetch`` retries only temporary errors, as an int does."""
    assert retries_for("GET", 2) == retries_for("GET", numpy.int64(2))
