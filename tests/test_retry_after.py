"""Tasks that are told to wait: by Retry-After, or by the package ratelimit."""

from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from io import BytesIO
from itertools import count
from urllib.error import HTTPError

import pytest
from fakes import Delays, Done, Fail, FakeRun, Script

from parallelkit import RateLimit, Retry, run_parallel
from parallelkit._report._summary import survey
from parallelkit._scheduling._retry_after import did_not_run, retry_after
from parallelkit.testing import inline_runs


def told(seconds):
    """An error that asks for a wait."""
    error = OSError("429")
    error.retry_after = seconds
    return error


def answered(header, name="Retry-After"):
    """An HTTP error whose response has its headers in a plain dict."""
    error = OSError("503")
    error.response = type("Response", (), {"headers": {name: header}})()
    return error


def answered_to_urllib(header, body=None):
    """An HTTP error as urllib raises it, which is itself the response; without its body, attributes raise KeyError."""
    headers = Message()
    headers["Retry-After"] = header
    return HTTPError("http://shop.example/", 503, "Service Unavailable", headers, body)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (told(2), 2.0),
        (told("1.5"), 1.5),
        (told(-1), None),
        (told(float("nan")), None),
        (told(float("inf")), None),
        (told("soon"), None),
        (told([3]), None),
        (answered("7"), 7.0),
        (answered("7", "retry-after"), 7.0),
        (answered("nonsense"), None),
        (answered(None), None),
        (answered_to_urllib("7"), 7.0),
        (answered_to_urllib("7", BytesIO(b"later")), 7.0),
        (OSError(), None),
    ],
)
def test_what_an_error_asks_for(error, seconds):
    """The wait is read from an attribute or a header, in seconds; nonsense is ignored."""
    assert seconds == retry_after(error)


def test_a_date_is_read_as_the_seconds_until_then():
    """A header may be a date; one in the past means now."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)
    assert 55 < retry_after(answered(soon)) <= 60
    assert 0.0 == retry_after(answered(past))


def test_an_error_whose_attributes_raise_has_told_nothing():
    """An error whose attributes raise asks for no wait, and does no harm."""

    class Strange(Exception):
        @property
        def retry_after(self):
            raise RuntimeError("no")

    assert retry_after(Strange()) is None


def test_the_wait_asked_for_is_the_least_delay():
    """The requested wait is the least delay: Retry-After of 4 s and a delay of 1 s make 4 s."""
    script = Script({"a": [Fail(told(4)), Done(1)]})
    run = FakeRun(script, ["a"], policy=Delays(1)).drive()
    assert 4.0 == run.clock()


def test_without_retries_it_is_a_failure_at_once():
    """Without a retry left, the wait is ignored, and the failure is final."""
    run = FakeRun(Script({"a": Fail(told(4))}), ["a"]).drive()
    assert 0.0 == run.clock()
    assert not run.outcomes[0].ok


@pytest.mark.parametrize(("seconds", "pause"), [(300, 300), (301, 0)])
def test_a_group_pauses_for_five_minutes_at_most(seconds, pause):
    """What asks for more fails, and holds up no other task."""
    script = Script({"a": Fail(told(seconds)), "b": Done("b")})
    run = FakeRun(script, ["a", "b"], workers=1, limits=[RateLimit(10, per=1)]).drive()
    assert pause == run.results.outcomes[1].started_at


def test_the_group_pauses_too():
    """When one task of a host is told to wait, the host's other tasks wait, too, but no others."""
    items = [("x", 0), ("x", 1), ("y", 0)]
    script = Script({("x", 0): [Fail(told(5)), Done(1)]})
    limits = [RateLimit(100, per=1, by=lambda item: item[0])]
    run = FakeRun(script, items, workers=1, limits=limits, policy=Retry(1, delay=0)).drive()
    assert [5.0, 5.0, 0.0] == [outcome.started_at for outcome in run.outcomes]


@pytest.mark.parametrize(
    ("seconds", "options"),
    [
        (301, {"policy": Retry(5)}),
        (20, {"policy": Retry(5, max_time=10)}),
        (20, {"policy": Retry(5), "end_at": 10.0}),
    ],
)
def test_a_wait_beyond_a_limit_is_the_final_failure_at_once(seconds, options):
    """A wait beyond 300 s, ``max_time`` or ``run_timeout`` makes the failure final at once."""
    run = FakeRun(Script({"a": Fail(told(seconds))}), ["a"], **options).drive()
    assert 0.0 == run.clock()
    assert run.scheduler.stopped is None
    assert isinstance(run.outcomes[0].error, OSError)


def test_a_function_that_says_it_did_not_run_waits_uncounted():
    """A RateLimitException of the package ratelimit counts no attempt: the task waits in the parent."""
    ratelimit = pytest.importorskip("ratelimit", reason="the package ratelimit is an extra")
    refusal = ratelimit.RateLimitException("too many calls", 3)
    script = Script({"a": [Fail(refusal), Fail(refusal), Done(1)]})
    run = FakeRun(script, ["a"]).drive()

    assert 6.0 == run.clock()
    assert (True, 1) == (run.outcomes[0].ok, run.outcomes[0].attempts)
    assert 0 == run.scheduler.retried


def test_only_the_real_exception_means_that_nothing_ran():
    """Another class named RateLimitException is an ordinary error, as is one that does not say how long to wait."""

    class RateLimitException(Exception):
        period_remaining = 3

    assert did_not_run(RateLimitException()) is None
    assert did_not_run(type("RateLimitException", (Exception,), {"__module__": "ratelimiter"})()) is None


def test_a_decorated_function_is_waited_for_in_processes(tmp_path):
    """The wait of a RateLimitException is obeyed in processes, too, although the exception itself cannot be unpickled."""
    pytest.importorskip("ratelimit", reason="the package ratelimit is an extra")

    def once(path):
        from ratelimit import RateLimitException

        try:
            open(path, "x").close()
        except FileExistsError:
            return "ran"
        raise RateLimitException("too many calls", 0.05)

    results = run_parallel(once, [f"{tmp_path}/mark"], executor="processes", max_workers=1)
    assert ["ran"] == results.values()
    assert 1 == results.outcomes[0].attempts


@pytest.mark.parametrize(
    "options", [{"run_timeout": 60}, {"retries": Retry(1, max_time=60)}, {"retries": Retry(0, max_time=60)}]
)
def test_a_function_that_never_runs_is_given_up_in_time(options):
    """A function that always refuses uses up no retries, so only ``max_time`` and ``run_timeout`` end it."""
    ratelimit = pytest.importorskip("ratelimit", reason="the package ratelimit is an extra")

    def refuse(item):
        assert clock() < 600, "it is still waited for"
        raise ratelimit.RateLimitException("too many calls", 7)

    with inline_runs() as clock:
        results = run_parallel(refuse, ["a"], **options)
    assert 53 < clock() <= 60
    assert isinstance(results.failures[0].error, ratelimit.RateLimitException)


@pytest.mark.parametrize("remaining", [0, -1])
def test_a_function_that_never_runs_is_not_called_in_a_busy_loop(remaining):
    """Some time passes before the next call even if the exception says that none need."""
    ratelimit = pytest.importorskip("ratelimit", reason="the package ratelimit is an extra")
    calls = count(1)

    def refuse(item):
        assert next(calls) <= 101, "time must pass"
        raise ratelimit.RateLimitException("too many calls", remaining)

    with inline_runs():
        results = run_parallel(refuse, ["a"], run_timeout=1)
    assert isinstance(results.failures[0].error, ratelimit.RateLimitException)


@pytest.mark.parametrize("before", [0, 1])
def test_a_refusal_that_is_not_waited_for_is_no_attempt(before):
    """The last word of a function that did not run is in no count, nor does it cost anything."""
    ratelimit = pytest.importorskip("ratelimit", reason="the package ratelimit is an extra")
    errors = [OSError("down")] * before + [ratelimit.RateLimitException("too many calls", 1000)]
    script = Script({"a": list(map(Fail, errors))})
    run = FakeRun(script, ["a"], policy=Retry(3, delay=0)).drive()
    [outcome] = run.outcomes
    assert (before, None, 0.0) == (outcome.attempts, outcome.started_at, outcome.duration)
    assert before == survey(run.ledger).summary.attempts
    assert [*range(1, before + 1)] == [
        one.number for one in run.ledger.attempts() if one.started_at is not None
    ]
