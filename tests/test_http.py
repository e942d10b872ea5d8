"""``http.fetch`` against a real server that is slow, flaky, limited, huge, or breaks off in the middle."""

import gc
import gzip
import inspect
import io
import math
import pickle
import socket
import ssl
import sys
import threading
import time
import tracemalloc
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from http.cookiejar import MozillaCookieJar
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import requests
from patience import given_time
from refusing import KINDS, fail_at_one
from requests.auth import HTTPBasicAuth
from requests.cookies import create_cookie
from urllib3 import HTTPResponse
from urllib3.exceptions import SSLError
from website import PATIENCE, Website, dropped, endless, good, short, short_chunks, status, then

from parallelkit import (
    Checkpoint,
    ConcurrencyLimit,
    InputError,
    RateLimit,
    Retry,
    Task,
    TaskFailures,
    TaskTimeout,
)
from parallelkit.http import OF_A_REQUEST, SET_HERE, WIDTH, fetch, host, is_transient
from parallelkit.testing import inline_runs

errors = requests.exceptions


@pytest.fixture
def site():
    with Website() as site:
        yield site


def urls_of(site, paths, page=good):
    """URLs of several pages of one kind."""
    paths = [f"/{path}" for path in paths]
    site.pages.update(dict.fromkeys(paths, page))
    return [site.url(path) for path in paths]


def error_of(results):
    """The error of the only URL."""
    (failure,) = results.failures.values()
    return failure.error


# What comes back


def test_every_response_comes_back_by_its_url(site):
    """Responses come in input order, under their URLs, as requests gives them, with their bodies."""
    urls = urls_of(site, range(20))
    results = fetch(urls)
    assert urls == list(results)
    assert {url: url[-len(path) :] for url, path in zip(urls, site.pages, strict=True)} == {
        url: response.text for url, response in results.items()
    }
    assert {requests.Response} == set(map(type, results.values()))
    assert {HTTPResponse} == {type(response.raw) for response in results.values()}


def test_a_mapping_lends_its_keys(site):
    """The keys of a mapping of URLs are the results' keys, even if two have the same URL, which ``then`` does not add again."""
    site.pages["/a"] = good
    results = fetch({"one": site.url("/a"), "two": site.url("/a")}, then=lambda outcome: [outcome.value.url])
    assert {"one": "/a", "two": "/a"} == {key: response.text for key, response in results.items()}


@pytest.mark.parametrize("lazily", [list, iter])
def test_a_url_that_comes_twice_is_fetched_once(site, lazily):
    """A duplicate URL is fetched once, and stands where it came first."""
    a, b = urls_of(site, "ab")
    assert [a, b] == list(fetch(lazily([a, b, a, a])))
    assert {"/a": 1, "/b": 1} == site.seen


def test_what_has_an_effect_is_not_left_out_in_silence(site):
    """Duplicate URLs of a method with effects, such as POST, are refused unless they have keys of their own."""
    (url,) = urls_of(site, "a")
    with pytest.raises(ValueError, match=r"key must be unique, got 'http.*' at positions 0 and 1"):
        fetch([url, url], method="POST")
    assert [] == site.log
    assert 2 == len(fetch({1: url, 2: url}, method="post", kwargs={"json": {"a": 1}}).successes)
    assert 2 == site.seen["/a"]


@pytest.mark.parametrize("code", [400, 404, 500])
def test_a_bad_status_is_a_failure_with_the_response(site, code):
    """A bad status fails only its own URL, with the response, whose body can be read."""
    good_url, bad = urls_of(site, "a")[0], site.url("/bad")
    site.pages["/bad"] = status(code)
    results = fetch([good_url, bad], retries=0)
    error = results.failures[bad].error
    assert (errors.HTTPError, code, f"status {code}") == (
        type(error),
        error.response.status_code,
        error.response.text,
    )
    assert "/a" == results[good_url].text


def test_a_bad_url_is_a_failure_of_its_own(site):
    """A bad URL fails alone, whatever is wrong with it."""
    (url,) = urls_of(site, "a")
    bad = ["nonsense", "http://[::1", "ftp://127.0.0.1/", "http://", "http://127.0.0.1:1/"]
    results = fetch([*bad, url], retries=0)
    assert (bad, [url]) == (list(results.failures), list(results.successes))


def test_redirects_are_followed_and_can_be_left_alone(site):
    """Redirects are followed, or not, as with requests and its keyword."""
    (target,) = urls_of(site, ["target"])
    site.pages["/moved"] = status(302, Location=target)
    moved = site.url("/moved")
    assert "/target" == fetch([moved])[moved].text
    assert 302 == fetch([moved], kwargs={"allow_redirects": False})[moved].status_code


def test_method_headers_and_body_are_sent(site):
    """Method, headers and body arrive at the server as given."""
    site.pages["/echo"] = lambda visit: visit.say(
        b" ".join(
            [visit.command.encode(), visit.headers["X-Token"].encode(), visit.path.encode(), visit.body]
        )
    )
    url = site.url("/echo")
    results = fetch(
        [url], method="put", headers={"X-Token": "t"}, kwargs={"params": {"q": 1}, "data": b"body"}
    )
    assert b"PUT t /echo?q=1 body" == results[url].content


def test_a_head_has_no_body(site):
    """A HEAD response has no body, although its Content-Length is that of a GET."""
    (url,) = urls_of(site, "a")
    response = fetch([url], method="HEAD", max_bytes=1)[url]
    assert (b"", "2") == (response.content, response.headers["Content-Length"])


def test_results_pickle(site):
    """Results can be pickled, with bodies and failures."""
    site.pages["/bad"] = status(404)
    urls = [*urls_of(site, "a"), site.url("/bad")]
    results = pickle.loads(pickle.dumps(fetch(urls)))
    assert "/a" == results[urls[0]].text
    assert 404 == results.failures[urls[1]].error.response.status_code


# Regard for the other side


def together(count):
    """A page that answers only when ``count`` visits are in at once."""
    barrier = threading.Barrier(count)

    def page(visit):
        barrier.wait(PATIENCE)
        visit.say()

    return page


def test_a_host_is_asked_six_times_at_once_and_no_more(site):
    """At most six requests to a host run at once, and six do."""
    results = fetch(urls_of(site, range(24), together(6)))
    assert (24, 6) == (len(results.successes), site.widest)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"per_host": 2, "max_workers": 12}, 2),
        ({"per_host": None, "max_workers": 12}, 12),
        ({"per_host": None}, WIDTH),
    ],
    ids=["fewer", "as many as threads", "as many as there are by default"],
)
def test_how_many_at_once_is_the_callers_choice(site, options, count):
    """``per_host`` may be less than six, or as many as there are threads."""
    urls = urls_of(site, range(max(12, count)), together(count))
    results = fetch(urls, **options)
    assert (len(urls), count) == (len(results.successes), site.widest)


def test_each_host_and_port_is_one_of_its_own(site):
    """Another host name is another host: with two requests at once to each of two, four are in."""
    paths = range(2)
    urls = urls_of(site, paths, together(4))
    results = fetch([*urls, *(url.replace("127.0.0.1", "localhost") for url in urls)], per_host=2)
    assert (4, 4) == (len(results.successes), site.widest)
    assert ("a.b:81", "a.b", "a.b", None, None) == tuple(
        map(host, ["http://u:p@A.b:81/x", "https://a.b", "http://a.b:80", "a.b", "http://["])
    )


def test_limits_of_the_caller_come_on_top(site):
    """The caller's own limits apply, too, with groups made of URLs."""
    results = fetch(
        urls_of(site, range(6)), limits=[ConcurrencyLimit(1), RateLimit(1000, per=1, by=lambda url: url[-1])]
    )
    assert (6, 1) == (len(results.successes), site.widest)


@pytest.mark.all
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_connections_are_used_again(site, method):
    """A hundred requests, six at a time, need six connections."""
    assert 100 == len(fetch(urls_of(site, range(100)), method=method).successes)
    assert site.connections <= 6


def test_many_hosts_do_not_add_up_to_many_connections():
    """Connections to hosts that are done with are closed, although the results still refer to them."""
    with ExitStack() as stack:
        sites = [stack.enter_context(Website()) for _ in range(15)]
        ports = {site.server_port for site in sites}
        sites[-1].pages["/a"] = lambda visit: visit.say(str(len(clients_of(ports))).encode())
        results = fetch([site.url("/a") for site in sites], max_workers=1)
        assert 14 == len(results.failures), "the other pages are missing"
        assert int(results.values(default=None)[-1].text) <= 11
        assert [] == clients_of(ports), "after the run there is none"


def test_connections_to_a_proxy_are_closed_too(site):
    """After the run no connection to a proxy is open, although the results still refer to it."""
    url = "http://elsewhere.test/a"
    site.pages[url] = good
    results = fetch([url], kwargs={"proxies": {"http": site.url("")}})
    kept, text = len(clients_of({site.server_port})), results[url].text
    del results
    gc.collect()  # else the site would wait for what is kept
    assert (url, 0) == (text, kept)


def clients_of(ports):
    """The open client sockets to these ports in this process."""
    found = [one for one in gc.get_objects() if isinstance(one, socket.socket) and one.fileno() != -1]
    return [one for one in found if peer_of(one) in ports]


def peer_of(one):
    try:
        return one.getpeername()[1]
    except OSError:
        return None


def test_a_broken_connection_is_replaced(site):
    """After a broken connection, the next request gets a new one."""
    site.pages["/short"] = short
    urls = [site.url("/short"), *urls_of(site, range(3))]
    assert 3 == len(fetch(urls, max_workers=1, retries=0).successes)


# Flaky


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_twice_again(site, code):
    """By default there are two retries: two bad answers and then a good one succeed."""
    (url,) = urls_of(site, "a", then(status(code), status(code), good))
    with inline_runs():
        results = fetch([url])
    assert ("/a", 3) == (results[url].text, results.outcomes[url].attempts)


@pytest.mark.parametrize(
    "broken", [dropped, short, short_chunks, lambda visit: visit.wfile.write(b"what?\r\n\r\n")]
)
def test_what_breaks_is_tried_again(site, broken):
    """A connection that breaks before the answer, in a body or in a chunk is retried, as is an answer that is not HTTP."""

    def breaking(visit):
        broken(visit)
        visit.cut()

    (url,) = urls_of(site, "a", then(breaking, good))
    with inline_runs():
        results = fetch([url])
    assert ("/a", 2) == (results[url].text, results.outcomes[url].attempts)


def test_a_handshake_that_breaks_off_is_tried_again():
    """If the server closes a connection while TLS is set up, the request is retried, as without TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)

        def close_two():
            for _ in range(2):
                client, _ = server.accept()
                with client:
                    client.recv(9999)

        closing = threading.Thread(target=close_two)
        closing.start()
        with inline_runs():
            results = fetch([f"https://127.0.0.1:{server.getsockname()[1]}/"], retries=1)
        (outcome,) = results.outcomes.values()
        assert (errors.SSLError, 2) == (type(outcome.error), outcome.attempts)
        closing.join()


@pytest.mark.parametrize("page", [short, short_chunks])
def test_a_body_that_breaks_off_is_never_taken_for_the_whole(site, page):
    """A body that breaks off is an error of requests, never a short body."""
    assert isinstance(error_of(fetch(urls_of(site, "a", page), retries=0)), errors.ChunkedEncodingError)


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (status(404), errors.HTTPError),
        (status(501), errors.HTTPError),
        (lambda visit: visit.say(b"no gzip", Content_Encoding="gzip"), errors.ContentDecodingError),
        (lambda visit: visit.say(b"", 302, Location="nowhere://"), errors.InvalidSchema),
    ],
)
def test_what_cannot_help_is_not_tried_again(site, page, kind):
    """An error that no retry can help is not retried."""
    assert kind is type(error_of(fetch(urls_of(site, "a", page))))
    assert 1 == site.seen["/a"]


def test_what_is_tried_again_by_kind():
    """Temporary errors are retried, permanent ones are not."""
    passing = [errors.ConnectionError(), errors.ConnectTimeout(), errors.ReadTimeout(), TaskTimeout()]
    staying = [
        errors.SSLError(),
        errors.InvalidURL(),
        errors.TooManyRedirects(),
        errors.HTTPError(),
        ValueError(),
    ]
    assert [True] * 4 == list(map(is_transient, passing))
    assert [False] * 5 == list(map(is_transient, staying))


@pytest.mark.parametrize(
    ("method", "retries", "visits"),
    [
        ("POST", None, 1),
        ("PATCH", None, 1),
        ("POST", 1, 2),
        ("PUT", None, 3),
        ("GET", 0, 1),
        ("GET", Retry(3), 4),
    ],
)
def test_by_default_only_what_may_be_repeated_is_tried_again(site, method, retries, visits):
    """Only idempotent methods are retried by default; retries of a POST must be asked for."""
    urls = urls_of(site, "a", status(503))
    options = {} if retries is None else {"retries": retries}
    with inline_runs():
        fetch(urls, method=method, **options)
    assert visits == site.seen["/a"]


@pytest.mark.parametrize(("retries", "waits"), [(None, 0.1 + 0.2), (Retry(5, delay=1), 1 + 2 + 4 + 8 + 16)])
def test_a_busy_server_is_waited_for_as_long_as_the_page_says(site, retries, waits):
    """The delays between retries add up to at most what the documentation says."""
    with inline_runs() as clock:
        fetch(urls_of(site, "a", status(503)), retries=retries)
    assert clock() == pytest.approx(waits)


@pytest.mark.parametrize(("policy", "visits"), [(Retry(1), 1), (Retry(1, on=errors.HTTPError), 2)])
def test_a_retry_with_an_on_of_its_own_decides_by_itself(site, policy, visits):
    """A Retry without ``on`` retries temporary errors only; its own ``on`` decides alone."""
    with inline_runs():
        fetch(urls_of(site, "a", status(404)), retries=policy)
    assert visits == site.seen["/a"]


# Told to wait


def test_retry_after_is_obeyed(site):
    """The second attempt is not made before the Retry-After has passed."""
    (url,) = urls_of(site, "a", then(status(429, Retry_After="7"), good))
    with inline_runs() as clock:
        results = fetch([url])
    assert (2, 7.0) == (results.outcomes[url].attempts, clock())


def test_the_whole_host_is_left_alone(site):
    """A Retry-After for one URL holds for all URLs of its host, and for no other host."""
    a, b = urls_of(site, "ab")
    site.pages["/a"] = then(status(503, Retry_After="7"), good)
    elsewhere = site.url("/b", "localhost")
    with inline_runs():
        outcomes = fetch([a, b, elsewhere]).outcomes
    assert [7.0, 7.0, 0.0] == [outcomes[url].started_at for url in (a, b, elsewhere)]


def test_a_wait_that_is_too_long_is_the_failure_at_once(site):
    """A Retry-After of an hour is an immediate failure."""
    with inline_runs() as clock:
        results = fetch(urls_of(site, "a", status(503, Retry_After="3600")))
    assert (503, 0.0) == (error_of(results).response.status_code, clock())


@pytest.mark.slow
@pytest.mark.all
def test_a_wait_holds_no_worker(site):
    """While one host asks to wait, the only thread asks another host."""
    (a,) = urls_of(site, "a", then(status(429, Retry_After="1"), good))
    (b,) = urls_of(site, "b")
    results = fetch([a, b.replace("127.0.0.1", "localhost")], max_workers=1)
    assert (["/a", "/b", "/a"], 2) == (site.log, len(results.successes))


@pytest.mark.slow
@pytest.mark.all
def test_a_site_with_a_limit_is_fetched_whole(site):
    """From a site that serves eight requests a second and refuses others with Retry-After, all twenty URLs come, with two retries each."""
    log = []

    def limited(visit):
        now = time.monotonic()
        log[:] = [at for at in log if at > now - 1]
        if len(log) >= 8:
            visit.say(b"", 429, Retry_After="1")
        else:
            log.append(now)
            good(visit)

    assert 20 == len(fetch(urls_of(site, range(20), limited)).successes)


# Slow


@pytest.mark.all
def test_a_server_that_says_nothing_is_left_after_the_read_timeout(site):
    """A server that never answers is left after the read timeout, and delays no other URL."""
    done = threading.Event()
    (silent,) = urls_of(site, ["silent"], lambda visit: done.wait(PATIENCE))
    again = Retry(4, delay=0)
    try:
        results = fetch([silent, *urls_of(site, "a")], read_timeout=0.1, retries=again)
    finally:
        done.set()
    assert errors.ReadTimeout is type(results.failures[silent].error)
    assert 1 == len(results.successes)


def test_a_server_that_says_nothing_is_left_at_the_timeout(site):
    """A shorter timeout of the attempt ends the wait for a first byte, too: its abandoned thread would wait for the whole read timeout."""
    done = threading.Event()
    (silent,) = urls_of(site, ["silent"], lambda visit: done.wait(PATIENCE))
    began = time.monotonic()
    try:
        with inline_runs():  # in this thread, so that it shows how long a thread takes
            results = fetch([silent], timeout=0.1, read_timeout=10, retries=0)
    finally:
        done.set()
    assert errors.ReadTimeout is type(error_of(results))
    assert time.monotonic() - began < 10


def test_a_body_that_stops_is_left_after_the_read_timeout(site):
    """The read timeout also applies in the middle of a body."""
    done = threading.Event()

    def stops(visit):
        visit.begin(Content_Length="1000")
        visit.wfile.write(b"x")
        done.wait(PATIENCE)
        visit.cut()

    try:
        results = fetch(urls_of(site, "a", stops), read_timeout=0.1, retries=0)
    finally:
        done.set()
    assert errors.ReadTimeout is type(error_of(results))


def test_a_host_that_does_not_answer_is_left_after_the_connect_timeout():
    """A port that accepts no connection is left after the connect timeout."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        try:
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            results = fetch([f"http://127.0.0.1:{full.getsockname()[1]}/"], connect_timeout=0.1, retries=0)
        finally:
            for client in waiting:
                client.close()
    assert errors.ConnectTimeout is type(error_of(results))


def test_infinity_is_no_bound(site):
    """Infinite timeouts, which sockets refuse, mean no bound, as in a run."""
    urls = urls_of(site, "a")
    assert 1 == len(
        fetch(urls, connect_timeout=math.inf, read_timeout=math.inf, timeout=math.inf, retries=0).successes
    )


@pytest.fixture
def dripping(site):
    """The URL of a page that sends a byte every 10 ms, endlessly, and an event that is set when the client leaves."""
    done, left = threading.Event(), threading.Event()

    def drips(visit):
        visit.begin(Content_Length="1000000")
        try:
            while not done.wait(0.01):
                visit.wfile.write(b"x")
        except OSError:
            left.set()
        visit.cut()

    yield urls_of(site, ["drips"], drips)[0], left
    done.set()


@given_time
def test_a_server_that_drips_is_bounded_by_the_timeout(site, dripping, scale):
    """A body that comes byte by byte, and so meets no read timeout, is ended by the task's timeout, with its thread and connection."""
    url, left = dripping
    gone = []
    results = fetch([url], timeout=0.2 * scale, retries=0, then=lambda outcome: gone.append(left.wait(5)))
    left.wait(5)  # the end of the run cuts it off in any case
    left.clear()  # for the next try
    assert TaskTimeout is type(error_of(results))
    assert [True] == gone, "while the run goes on, the client hangs on"


@given_time
def test_the_end_of_the_run_cuts_off_what_is_still_read(site, dripping, scale):
    """When a run is stopped, the connections that are being read are closed at once, so that no thread reads on."""
    url, left = dripping
    closed = threading.Event()

    class Telling(requests.Session):
        def close(self):
            super().close()
            closed.set()

    limit = 0.2 * scale
    results = fetch([url], run_timeout=limit, session=Telling)
    assert f"run_timeout of {limit:g} s" == results.stopped
    assert left.wait(5), "the client hangs on"
    assert closed.wait(5), "its session comes back too late to be closed"


# Huge


def test_a_huge_body_comes_whole(site):
    """A body of 32 MB comes complete, and is not in memory twice."""
    body = bytes(range(256)) * (1 << 17)
    (url,) = urls_of(site, "a", lambda visit: visit.say(body))
    tracemalloc.start()
    try:
        response = fetch([url])[url]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert body == response.content
    assert peak < 1.5 * len(body)


@pytest.mark.parametrize("size", [99_999, 100_000, 100_001])
def test_a_body_beyond_max_bytes_is_a_failure(site, size):
    """A body that exceeds ``max_bytes`` by one byte is a failure."""
    results = fetch(urls_of(site, "a", lambda visit: visit.say(b"x" * size)), max_bytes=100_000)
    if size <= 100_000:
        assert size == len(results.values()[0].content)
    else:
        assert "the body is longer than max_bytes of 100000" in str(error_of(results))
        assert 1 == site.seen["/a"]


def test_of_an_endless_body_no_more_is_read_than_may_be(site):
    """An endless body is read only up to ``max_bytes``; then the connection is closed, although the error is kept."""
    results = fetch(urls_of(site, "a", endless), max_bytes=10**6)
    kept = len(clients_of({site.server_port}))
    text = str(error_of(results))
    del results
    gc.collect()  # else the site would wait for what is kept
    assert ("the body is longer than max_bytes of 1000000", 0) == (text, kept)


def test_the_bound_holds_for_what_is_unpacked(site):
    """``max_bytes`` applies to the decompressed body."""
    bomb = gzip.compress(bytes(10**7))
    results = fetch(
        urls_of(site, "a", lambda visit: visit.say(bomb, Content_Encoding="gzip")), max_bytes=10**6
    )
    assert "longer than max_bytes" in str(error_of(results))


def test_what_is_packed_twice_is_not_unpacked_beyond_the_bound(site):
    """A kilobyte that unpacks, twice, to 30 MB takes no such memory before ``max_bytes`` stops it."""
    bomb = gzip.compress(gzip.compress(bytes(3 * 10**7)))
    urls = urls_of(site, "a", lambda visit: visit.say(bomb, Content_Encoding="gzip, gzip"))
    tracemalloc.start()
    try:
        results = fetch(urls, max_bytes=10**5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "longer than max_bytes" in str(error_of(results))
    assert peak < 10**7


@pytest.mark.parametrize("followed", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_the_bound_holds_for_what_comes_with_a_redirect(site, packed, followed):
    """The body of a redirect, which requests would read and keep, is bounded: a hostile server might send any amount."""
    bomb = gzip.compress(bytes(10**7)) if packed else bytes(10**7)
    again = {"Location": "/a"} | ({"Content_Encoding": "gzip"} if packed else {})
    urls = urls_of(site, "a", lambda visit: visit.say(bomb, 302, **again))
    results = fetch(urls, max_bytes=10**6, kwargs={"allow_redirects": followed})
    assert "the body is longer than max_bytes of 1000000" == str(error_of(results))
    assert 1 == site.seen["/a"]


@pytest.mark.parametrize(
    "headers", [{"Content_Encoding": "gzip"}, {"Transfer_Encoding": "chunked"}], ids=["packed", "chunked"]
)
def test_a_redirect_is_followed_whatever_is_broken_about_its_body(site, headers):
    """A redirect with a broken body is followed, as with requests."""

    def broken(visit):
        visit.begin(302, Location=target, **headers)
        visit.wfile.write(b"no gzip, no chunk\r\n")
        visit.cut()

    (target,) = urls_of(site, ["target"])
    moved = urls_of(site, "a", broken)
    assert ["/target"] == [response.text for response in fetch(moved, retries=0).values()]


def test_a_redirect_to_nowhere_keeps_no_connection(site):
    """If the target of a redirect cannot be decoded, the connection is closed, although the error is kept."""
    urls = urls_of(site, range(3), lambda visit: visit.say(b"gone", 302, Location="/\xff"))
    results = fetch(urls, retries=0)
    kinds = [type(failure.error) for failure in results.failures.values()]
    kept = len(clients_of({site.server_port}))
    del results
    gc.collect()  # else the site would wait for what is kept
    assert ([UnicodeDecodeError] * 3, 0) == (kinds, kept)


def test_a_session_keeps_its_own_way_with_redirects(site):
    """A session's own ``get_redirect_target`` is kept, and one without it is left unchanged."""
    moved = urls_of(site, "a", lambda visit: visit.say(b"gone", 302, Location="/b"))
    plain, own = requests.Session(), requests.Session()
    own.get_redirect_target = stay = lambda response: None
    assert [302] == [response.status_code for response in fetch(moved, session=lambda: own).values()]
    assert own.get_redirect_target is stay
    fetch(moved, session=lambda: plain)
    assert "get_redirect_target" not in vars(plain)


def test_packed_bodies_are_unpacked(site):
    """Compressed bodies are decompressed completely, even if chunked."""
    text = b"to be or not to be " * 10_000
    packed = gzip.compress(text)

    def chunked(visit):
        visit.begin(Transfer_Encoding="chunked", Content_Encoding="gzip")
        for start in range(0, len(packed), 100):
            piece = packed[start : start + 100]
            visit.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        visit.wfile.write(b"0\r\n\r\n")

    a = urls_of(site, "a", lambda visit: visit.say(packed, Content_Encoding="gzip"))
    b = urls_of(site, "b", chunked)
    assert [text, text] == [response.content for response in fetch(a + b).values()]


# Sessions


class Noting(requests.Session):
    """Session classes that record their creation and closing."""

    made: ClassVar[list] = []
    closed: ClassVar[list] = []

    def __init__(self):
        super().__init__()
        self.headers["X-Token"] = "secret"
        self.made.append(self)

    def close(self):
        self.closed.append(self)
        super().close()


@pytest.fixture
def noting():
    Noting.made, Noting.closed = [], []
    return Noting


def test_a_session_of_the_callers_kind_is_made_for_each_thread_and_closed(site, noting):
    """``session`` is called at most once per thread; what the session carries is sent, and it is closed."""
    urls = urls_of(site, range(20), lambda visit: visit.say(visit.headers["X-Token"].encode()))
    assert ["secret"] * 20 == [
        response.text for response in fetch(urls, session=noting, max_workers=3).values()
    ]
    assert 1 <= len(noting.made) <= 3
    assert set(noting.made) == set(noting.closed)


def test_sessions_are_closed_whatever_happens(site, noting):
    """Sessions are closed even if the run raises."""
    with pytest.raises(errors.HTTPError):
        fetch(urls_of(site, "a", status(404)), session=noting, on_error="raise")
    with pytest.raises(InputError):
        fetch((1 / 0 for _ in "a"), session=noting)
    assert noting.made
    assert set(noting.made) == set(noting.closed)


def test_a_session_that_cannot_be_made_is_a_failure(site):
    """If ``session`` raises, each URL that needs it fails."""
    assert isinstance(error_of(fetch(urls_of(site, "a"), session=lambda: 1 / 0)), ZeroDivisionError)


def test_what_is_no_session_is_named(site):
    """If ``session`` returns something else, such as None, the error says so."""
    (failure,) = fetch(urls_of(site, "a"), session=lambda: None, retries=2).failures.values()
    assert 1 == failure.attempts
    assert str(failure.error).startswith("session must make a requests.Session, <function ")
    assert str(failure.error).endswith(" gave None")


def test_no_request_hangs_on_the_cookies_of_another(site):
    """Cookies set by a server last only for their request, redirects included; the session's own cookies stay."""
    seen = []

    def page(visit):
        seen.append(visit.headers["Cookie"])
        visit.say(b"", 302, Location="/end", Set_Cookie="theirs=1")

    def session():
        session = requests.Session()
        session.cookies["mine"] = "1"
        return session

    site.pages["/end"] = lambda visit: (seen.append(visit.headers["Cookie"]), visit.say())
    fetch(urls_of(site, range(2), page), session=session, max_workers=1)
    assert ["mine=1", "mine=1; theirs=1"] * 2 == seen


def test_a_session_may_have_a_cookie_jar_of_the_standard_library(site):
    """With a jar such as cookies.txt is read into, too, no request depends on the cookies of another."""
    seen = []

    def session():
        session = requests.Session()
        session.cookies = MozillaCookieJar()
        session.cookies.set_cookie(create_cookie("mine", "1"))
        return session

    def page(visit):
        seen.append(visit.headers["Cookie"])
        visit.say(Set_Cookie="theirs=1")

    assert 2 == len(fetch(urls_of(site, range(2), page), session=session, max_workers=1).successes)
    assert ["mine=1"] * 2 == seen


def test_one_session_for_all_threads_is_refused(site):
    """If ``session`` gives the same one twice, the second thread's URL fails, which names what is wrong."""
    asked, again = [], threading.Event()

    def session():
        asked.append(one)
        if len(asked) > 1:
            again.set()
        return one

    def page(visit):
        again.wait(PATIENCE)
        visit.say()

    with requests.Session() as one:
        results = fetch(urls_of(site, range(2), page), session=session, max_workers=2, retries=0)
    assert 1 == len(results.failures)
    assert str(error_of(results)).startswith("session must make a new requests.Session each time, <function")


def test_a_hook_may_judge_a_response_before_it_is_read(site):
    """What a response hook raises is the failure; the body can still be read, and the connection is reused."""

    def session():
        session = requests.Session()
        session.hooks["response"].append(lambda response, **_: response.raise_for_status())
        return session

    site.pages["/bad"] = status(404)
    results = fetch([site.url("/bad"), *urls_of(site, "a")], session=session, max_workers=1)
    assert "status 404" == results.failures[site.url("/bad")].error.response.text
    assert (1, 1) == (len(results.successes), site.connections)


def answering(answer):
    """A session that has no network: ``answer`` fills in each response to a mine:// URL."""

    class Local(requests.adapters.BaseAdapter):
        def send(self, request, **_):
            response = requests.Response()
            response.status_code, response.url, response.request = 200, request.url, request
            answer(response)
            return response

        def close(self):
            pass

    session = requests.Session()
    session.mount("mine://", Local())
    return session


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reading", [False, True])
def test_an_error_that_refuses_attributes_is_the_failure_itself(kind, reading):
    """An adapter's error that refuses attributes, raised while sending or reading, is the failure itself."""

    class Broken(io.BytesIO):
        def read(self, size=-1):
            fail_at_one(1, kind)

    def answer(response):
        if not reading:
            fail_at_one(1, kind)
        response.raw = Broken()

    error = fetch(["mine://x"], session=partial(answering, answer)).failures["mine://x"].error
    assert kind == type(error).__name__


@pytest.mark.parametrize(("cause", "attempts"), [(None, 1), (ssl.SSLEOFError(), 2)])
def test_an_error_of_tls_within_a_body_is_that_of_requests(cause, attempts):
    """urllib3's SSLError becomes that of requests; it is tried again only if the server has closed the connection."""

    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise SSLError("broken") from cause

    def answer(response):
        response.raw = Broken()

    failure = fetch(["mine://x"], session=partial(answering, answer), retries=1).failures["mine://x"]
    assert (errors.SSLError, attempts) == (type(failure.error), failure.attempts)


def test_a_response_that_is_read_already_is_not_unpacked_again():
    """A session may give responses that have been read, as requests-cache does, with the headers of what was packed."""

    def answer(response):
        response.headers["Content-Encoding"] = "gzip"
        response.raw = HTTPResponse(io.BytesIO(b"kept"), response.headers, 200, preload_content=False)
        response._content = b"kept"

    session = partial(answering, answer)
    assert ["kept"] == [response.text for response in fetch(["mine://x"], session=session).values()]
    assert "longer than max_bytes" in str(error_of(fetch(["mine://x"], session=session, max_bytes=3)))


def test_a_response_may_have_no_body():
    """A session's own adapter, of a test say, need not give any: as with requests, its content is None."""
    results = fetch(["mine://x"], session=partial(answering, lambda response: None))
    assert (200, None) == (results["mine://x"].status_code, results["mine://x"].content)


class Played(io.BytesIO):
    """A body as VCR.py plays it: it streams, and is still none of urllib3's."""

    def stream(self, amount, decode_content):
        yield self.read()


class Kept(requests.Response):
    """A response as requests-cache keeps it: by its value, and so without a hash."""

    __eq__ = __hash__ = None


@pytest.mark.parametrize(("kind", "body"), [(requests.Response, io.BytesIO), (Kept, Played)])
def test_an_adapter_may_give_any_file(kind, body):
    """The bodies of a session's own adapter may be plain files, and the responses of a class of its own."""

    class Local(requests.adapters.BaseAdapter):
        def send(self, request, **_):
            response = kind()
            response.status_code, response.url, response.request = 200, request.url, request
            response.raw = body(b"from afar")
            return response

        def close(self):
            pass

    def session():
        session = requests.Session()
        session.mount("mine://", Local())
        return session

    assert b"from afar" == fetch(["mine://x"], session=session)["mine://x"].content


# Options of a run


def test_a_crawl_follows_links_each_once(site):
    """``then`` may return URLs, or yield them; those already fetched are left out."""
    links = {"/": "/a /b", "/a": "/ /b /c", "/b": "/a", "/c": "/gone"}
    for path, text in links.items():
        site.pages[path] = lambda visit, text=text: visit.say(text.encode())

    def follow(outcome):
        for path in outcome.value.text.split() if outcome.ok else ():
            yield site.url(path)

    results = fetch([site.url("/")], then=follow)
    assert {site.url(path) for path in [*links, "/gone"]} == set(results)
    assert {"/gone"} == {url.removeprefix(site.url("")) for url in results.failures}
    assert 1 == max(site.seen.values())
    assert site.url("/a") == results.outcomes[site.url("/c")].parent


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("http://x", "then must return an iterable of URLs, got 'http://x'"),
        (5, "then must return an iterable of URLs, got 5"),
        ([Task(abs, 1)], "then must return URLs, which fetch makes tasks of, got Task(abs, 1)"),
        ([None], "then must return URLs, which fetch makes tasks of, got None"),
    ],
)
def test_then_must_give_urls_and_not_one(site, given, message):
    """``then`` must not return a str, whose letters would be taken for URLs, nor a Task."""
    with pytest.raises(InputError) as caught:
        fetch(urls_of(site, "a"), then=lambda outcome: given)
    assert message in str(caught.value.__cause__)
    assert ["/a"] == list(site.seen)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_no_text_is_no_url_also_where_the_input_is_read_lazily(site, method):
    """In lazy input, an item that is not a str ends the input: earlier URLs are fetched, and the caller's generator is closed."""
    site.pages["/a"] = good
    urls = iter_urls(site)
    with pytest.raises(InputError, match="after 1 item: urls must be str, got None at position 1") as caught:
        fetch(urls, method=method)
    assert [True] == [outcome.ok for outcome in caught.value.results.outcomes.values()]
    assert inspect.GEN_CLOSED == inspect.getgeneratorstate(urls)


def iter_urls(site):
    yield site.url("/a")
    yield None
    raise AssertionError("nothing is read after the error")


def test_a_checkpoint_spares_what_was_fetched(site, tmp_path):
    """A resumed crawl requests only what is not recorded, including links of recorded pages."""
    site.pages.update({"/": lambda visit: visit.say(b"/a"), "/a": then(status(404), good)})

    def follow(outcome):
        return [site.url("/a")] if outcome.key == site.url("/") else []

    for _ in range(2):
        results = fetch([site.url("/")], then=follow, checkpoint=tmp_path / "journal")
    assert {"/": 1, "/a": 2} == site.seen
    assert ["/a", "/a"] == [response.text for response in results.values()]


def asked(**kwargs):
    return {"method": "PUT", "kwargs": kwargs}


QUESTIONS = {
    "method": ({}, {"method": "HEAD"}, "method"),
    "header": ({"headers": {"Accept": "a"}}, {"headers": {"Accept": "b"}}, "header 'accept'"),
    "one more header": ({}, {"headers": {"Accept": "a"}}, "header 'accept'"),
    "no header of the session's": ({"headers": {"A": "None"}}, {"headers": {"A": None}}, "header 'a'"),
    "params": (asked(params={"page": 1}), asked(params={"page": 2}), "keyword 'params'"),
    "params by list": (asked(params={"id": [1, 2]}), asked(params={"id": [2, 1]}), "keyword 'params'"),
    "params by instant": (
        asked(params={"since": datetime(2026, 1, 1)}),
        asked(params={"since": datetime(2026, 1, 2)}),
        "keyword 'params'",
    ),
    "params by numpy's number": (
        asked(params={"page": np.int64(1)}),
        asked(params={"page": np.int64(2)}),
        "keyword 'params'",
    ),
    "body": (asked(data=b"1"), asked(data=b"2"), "keyword 'data'"),
    "body that may change": (asked(data=bytearray(b"1")), asked(data=bytearray(b"2")), "keyword 'data'"),
    "form": (asked(data=[("a", "1")]), asked(data=[("a", "2")]), "keyword 'data'"),
    "json": (asked(json={"a": [{"b": 1}]}), asked(json={"a": [{"b": 2}]}), "keyword 'json'"),
    "json by type": (asked(json={"a": 1}), asked(json={"a": "1"}), "keyword 'json'"),
    "files": (asked(files={"a": ("n", b"1")}), asked(files={"a": ("n", b"2")}), "keyword 'files'"),
    "cookies": (asked(cookies={"user": "a"}), asked(cookies={"user": "b"}), "keyword 'cookies'"),
    "user": (asked(auth=("user", "a")), asked(auth=("other", "a")), "keyword 'auth'"),
    "redirects": ({}, {"kwargs": {"allow_redirects": False}}, "keyword 'allow_redirects'"),
}


@pytest.mark.parametrize(("first", "second", "difference"), QUESTIONS.values(), ids=QUESTIONS)
def test_no_answer_of_a_journal_is_given_to_another_question(site, in_memory, first, second, difference):
    """A journal of different requests is refused at the call, with the difference, and nothing is sent."""
    urls = urls_of(site, "a")
    fetch(urls, checkpoint=in_memory / "journal", **first)
    with pytest.raises(ValueError, match="a journal of the same function") as caught:
        fetch(urls, checkpoint=in_memory / "journal", **second)
    differs = f"it is of parallelkit.http:fetch as well, but this run differs in {difference}"
    assert differs in str(caught.value)
    assert {"/a": 1} == site.seen


def prompt_session():
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {time.monotonic()}"
    return session


SAME_QUESTIONS = {
    "names of headers": ({"headers": {"Accept": "a", "B": "b"}}, {"headers": {"b": "b", "accept": "a"}}),
    "order of names": (asked(json={"a": 1, "b": [2]}), asked(json={"b": [2], "a": 1})),
    "kind of bytes": (asked(data=b"x" * 9), asked(data=bytearray(b"x" * 9))),
    "order of a set": (asked(params={"id": {0, 8}}), asked(params={"id": {8, 0}})),
    "kind of list": (asked(data=[("a", "1")]), asked(data=(["a", "1"],))),
    "none": ({}, {"headers": {}, "kwargs": {"params": None}}),
    "session": ({}, {"session": prompt_session}),
    "way": ({"kwargs": {"verify": True}}, {"kwargs": {"verify": False, "proxies": {"no_proxy": "*"}}}),
    "care": (
        {},
        {
            "connect_timeout": 3,
            "read_timeout": 4,
            "timeout": 20,
            "retries": 1,
            "per_host": 1,
            "max_bytes": 99,
            "max_workers": 2,
        },
    ),
    "objects": (
        asked(auth=HTTPBasicAuth("a", "1")),
        asked(auth=HTTPBasicAuth("b", "2")),
    ),  # the docstring says so
}


@pytest.mark.parametrize(("first", "second"), SAME_QUESTIONS.values(), ids=SAME_QUESTIONS)
def test_the_same_question_is_resumed(site, in_memory, first, second):
    """A journal of the same request is used, however the arguments are written, and whatever the options of the run."""
    urls = urls_of(site, "a")
    before = fetch(urls, checkpoint=in_memory / "journal", **first)
    results = fetch(urls, checkpoint=in_memory / "journal", **second)
    assert [0, before[urls[0]].content] == [results.outcomes[urls[0]].attempts, results[urls[0]].content]


def signed_session():
    session = requests.Session()
    session.headers["X-Key"] = "sesame"
    return session


def moved(visit):
    visit.say(b"", 302, Location="/b")


def challenging(visit):
    """A page that asks for a digest, as the hook on the request expects."""
    if "Authorization" in visit.headers:
        visit.say(b"welcome")
    else:
        visit.say(b"", 401, WWW_Authenticate='Digest realm="a", nonce="b", qop="auth"')


SECRETS = [
    {"headers": {"Authorization": "Bearer sesame"}},
    {"headers": {"X-Key": "sesame"}},
    {"session": signed_session},
    asked(cookies={"user": "sesame"}),
    asked(auth=requests.auth.HTTPDigestAuth("user", "sesame")),
    asked(json={"password": "sesame"}),
]
PAGES = [good, status(404), moved, challenging, dropped]


@pytest.mark.parametrize(
    ("options", "page"),
    [  # by default, each way to send a secret for two pages, and each page for two ways or more
        pytest.param(options, page, marks=() if (way - number) % 5 < 2 else pytest.mark.all)
        for way, options in enumerate(SECRETS)
        for number, page in enumerate(PAGES)
    ],
)
def test_no_password_is_written_into_the_journal(site, in_memory, page, options):
    """With a checkpoint, recorded and returned responses have only method and URL of the request, so that no password is stored."""
    site.pages.update({"/a": page, "/b": status(404)})
    journal = Checkpoint(in_memory / "journal", rerun_failed=False)
    for attempts in [1, 0]:
        results = fetch([site.url("/a")], checkpoint=journal, retries=0, **options)
        (outcome,) = results.outcomes.values()
        assert attempts == outcome.attempts
        request = outcome.value.request if outcome.ok else outcome.error.request
        if request is not None:
            assert ({}, None) == (request.headers, request.body)
            assert request.url.startswith(site.url(""))
    assert b"sesame" not in (in_memory / "journal").read_bytes()


def test_without_a_checkpoint_the_request_is_as_it_was_sent(site):
    """Without a checkpoint, a response has the request as it was sent."""
    (response,) = fetch(urls_of(site, "a"), headers={"X-Key": "sesame"}).values()
    assert "sesame" == response.request.headers["X-Key"]


def test_options_of_the_run_hold(site):
    """``fetch`` takes the options of a run: order, priority, progress and the stop rule."""
    urls = urls_of(site, "abc")
    with inline_runs():
        assert sorted(urls, reverse=True) == list(
            fetch(urls, priority=lambda url: ord(url[-1]), order="completion")
        )
        site.pages["/a"] = status(404)
        results = fetch(urls, max_failures=1)
    assert "max_failures of 1 reached" == results.stopped
    with pytest.raises(TaskFailures):
        results.values()


async def find_none(outcome):
    return []


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            "http://x",
            {},
            TypeError,
            "urls must be an iterable of URLs, got the one 'http://x'; pass it in a list",
        ),
        (5, {}, TypeError, "urls must be an iterable of URLs, got 5"),
        ([None], {}, TypeError, "urls must be str, got None at position 0"),
        (
            ["http://x", ("a", "http://y")],
            {},
            TypeError,
            "urls must be str, got ('a', 'http://y') at position 1",
        ),
        ([3], {"method": "POST"}, TypeError, "urls must be str, got 3 at position 0"),
        ({"a": b"http://x"}, {}, TypeError, "urls must be str, got b'http://x' at position 0"),
        ([], {"headers": ["a"]}, TypeError, "headers must be a mapping, got ['a']"),
        ([], {"headers": {"a": 1}}, TypeError, "headers['a'] must be a str, got 1"),
        (
            [],
            {"headers": {"a": "token\n"}},
            ValueError,
            "headers['a'] must be one line of Latin-1 that does not begin with a space",
        ),
        ([], {"headers": {"a": b" token"}}, ValueError, "headers['a'] must be one line"),
        ([], {"headers": {"a": "€"}}, ValueError, "headers['a'] must be one line of Latin-1"),
        *(
            (
                [],
                {"headers": {name: "1"}},
                ValueError,
                f"headers must have names such as 'X-Token', got {name!r}",
            )
            for name in ("X Y", "X:", "", "é", "X\n")
        ),
        (
            [],
            {"session": requests.Session()},
            TypeError,
            "session must be a function that makes a requests.Session, got <",
        ),
        ([], {"executor": "processes"}, TypeError, "executor is not an option of fetch"),
        (
            [],
            {"key": str},
            TypeError,
            "key is not an option of fetch, which runs in threads, with the URLs, or the keys of a mapping",
        ),
        (
            [],
            {"params": {"page": 1}},
            TypeError,
            "params is not an option of fetch; what a request takes goes into kwargs={'params': ...}",
        ),
        (
            [],
            {"json": {}},
            TypeError,
            "json is not an option of fetch; what a request takes goes into kwargs",
        ),
        *(
            ([], {wrong: 3}, TypeError, f"unknown option '{wrong}'; did you mean '{right}'?")
            for wrong, right in {
                "max_worker": "max_workers",
                "n_jobs": "max_workers",
                "header": "headers",
                "perhost": "per_host",
                "read_timout": "read_timeout",
            }.items()
        ),
        (
            [],
            {"user_agent": "me"},
            TypeError,
            "unknown option 'user_agent'; the options are buffersize, checkpoint, connect_timeout, headers, kwargs, ",
        ),
        ([], {"chunksize": 3}, TypeError, "unknown option 'chunksize'; batches are sized automatically"),
        (
            [],
            {"kwargs": {"timeout": 3}},
            TypeError,
            "kwargs must not have 'timeout', which fetch sets by itself, from its options method, headers, connect_",
        ),
        ([], {"kwargs": 3}, TypeError, "kwargs must be a mapping, got 3"),
        *(
            (
                [],
                {"kwargs": {name: value}},
                TypeError,
                f"kwargs['{name}'] must not have an open file or an iterator",
            )
            for name, value in (
                ("data", io.BytesIO(b"1")),
                ("data", SimpleNamespace(read=bytes)),  # as an encoder of requests-toolbelt
                ("files", {"scan": ("scan.png", io.BytesIO(b"1"))}),
                ("params", zip("a", "1", strict=True)),
            )
        ),
        ([], {"then": 3}, TypeError, "then must be callable, got 3"),
        ([], {"then": find_none}, TypeError, "then must not be defined by 'async def'"),
        ([], {"method": 3}, TypeError, "method must be a str, got 3"),
        ([], {"method": "GET /"}, ValueError, "method must be a word such as 'GET', got 'GET /'"),
        ([], {"method": "é"}, ValueError, "method must be a word such as 'GET', got 'é'"),
        ([], {"per_host": 0}, ValueError, "per_host must be greater than 0, got 0"),
        ([], {"connect_timeout": 0}, ValueError, "connect_timeout must be greater than 0, got 0"),
        (
            [],
            {"timeout": (3, 5)},
            TypeError,
            "timeout must be a number of seconds, got (3, 5); the two of requests are connect_timeout and",
        ),
        ([], {"timeout": "3"}, TypeError, "timeout must be a number of seconds, got '3'"),
        ([], {"read_timeout": None}, TypeError, "read_timeout must be a number of seconds, got None"),
        ([], {"max_bytes": "1M"}, TypeError, "max_bytes must be an int, got '1M'"),
        ([], {"retries": "2"}, TypeError, "retries must be an int, a Retry or a tenacity.Retrying, got '2'"),
        ([], {"limits": 3}, TypeError, "limits must be RateLimit or ConcurrencyLimit objects, got 3"),
    ],
)
def test_bad_calls_are_refused_at_the_door(arguments, options, error, message):
    """Bad calls are refused at once, with the argument, the rule and the value."""
    with pytest.raises(error) as caught:
        fetch(arguments, **options)
    assert str(caught.value).startswith(message)


def test_what_a_request_takes_is_told_from_the_options_of_fetch():
    """Each argument of ``Session.request`` is either an option of ``fetch``, set by it, or known to belong in ``kwargs``."""
    taken = set(inspect.signature(requests.Session.request).parameters) - {"self"}
    assert taken == OF_A_REQUEST | SET_HERE


def test_without_requests_the_error_says_what_to_install(monkeypatch):
    """Without requests, the ImportError names the extra to install."""
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(
        ImportError, match=r"parallelkit.http needs requests: pip install 'parallelkit\[http\]'"
    ):
        fetch([])
