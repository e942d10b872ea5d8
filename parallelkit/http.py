"""``fetch``: many URLs at once over ``requests``, with timeouts, retries and consideration for the servers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload
from urllib.parse import urlsplit

from parallelkit._errors import TaskTimeout
from parallelkit._http._fetcher import Fetcher, Sessions, broke_off
from parallelkit._http._sent import OF_A_REQUEST, Sent, is_line, is_read_once, is_token
from parallelkit._http._urls import follow, seeds_of
from parallelkit._keywords import did_you_mean
from parallelkit._limits import ConcurrencyLimit, RateLimit, as_limits
from parallelkit._numbers import as_whole, check_count, check_seconds, check_timeout
from parallelkit._options import ANSWERED, ELSEWHERE, RunOptions
from parallelkit._results import Results
from parallelkit._retry import Retry
from parallelkit._run import run_parallel
from parallelkit._scheduling._retry_after import PAUSES
from parallelkit._tasks import check_kwargs

if TYPE_CHECKING:
    from requests import Response, Session

__all__ = ["fetch"]

K = TypeVar("K")

WIDTH = 32  # threads, whatever the cpus: they only wait
IDEMPOTENT = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})  # RFC 9110 §9.2.2
TRANSIENT = frozenset({429, 500, 502, 503, 504})  # statuses that another try may change
USUAL_PORTS = {"http": ":80", "https": ":443"}  # by scheme: a URL may name them or not
NOT_OURS = frozenset({"args", "executor", "key", "star"})  # options of run_parallel that fetch does not take
OURS = ("connect_timeout", "headers", "max_bytes", "method", "per_host", "read_timeout", "session")
ITERATED = ("cookies", "data", "files", "params")  # what ``requests`` takes in parts
SET_HERE = frozenset({"headers", "method", "stream", "timeout", "url"})  # of a request, set by fetch


@overload
def fetch(  # type: ignore[overload-overlap]  # a mapping is an iterable too, and comes first
    urls: Mapping[K, str],
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    session: Callable[[], Session] | None = None,
    per_host: int | None = 6,
    connect_timeout: float = 5,
    read_timeout: float = 30,
    max_bytes: int | None = None,
    **options: Unpack[RunOptions],
) -> Results[K, Response]: ...
@overload
def fetch(
    urls: Iterable[str],
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    session: Callable[[], Session] | None = None,
    per_host: int | None = 6,
    connect_timeout: float = 5,
    read_timeout: float = 30,
    max_bytes: int | None = None,
    **options: Unpack[RunOptions],
) -> Results[str, Response]: ...
def fetch(
    urls: Any,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    session: Callable[[], Session] | None = None,
    per_host: int | None = 6,
    connect_timeout: float = 5,
    read_timeout: float = 30,
    max_bytes: int | None = None,
    **options: Any,
) -> Results[Any, Response]:
    """Fetch many URLs at once; return every ``requests.Response`` by its URL.

    An error is the ``Failure`` of its own URL only. A status of 400 or more is a ``requests.HTTPError``,
    whose ``response`` has the body. A URL that occurs twice is fetched once; with POST or PATCH it is a
    ValueError, since each request would have its effect. If ``urls`` is a mapping, its values are fetched,
    and the results have its keys.

    Load on the servers:

    - ``per_host``: requests at a time to one host and port, default 6; None for no such limit. It adds to
      your own ``limits``, whose ``by`` is given the URL.
    - A host that answers with Retry-After gets no request until then, for any of its URLs.
    - ``retries``: default 2 extra tries, after up to 0.1 s and up to 0.2 s, if the method is idempotent (GET,
      HEAD, OPTIONS, PUT, DELETE, TRACE), else none. Only what may be transient is tried again: connection
      errors, timeouts, broken bodies, and the statuses 429, 500, 502, 503 and 504. A ``Retry`` with its own
      ``on`` replaces these rules.

    Bounds on time and size:

    - ``connect_timeout``: seconds to establish a connection, default 5. ``read_timeout``: seconds without a
      byte from the server, default 30. Against a server that sends a byte now and then, set ``timeout``, the
      seconds for a whole attempt (default: none).
    - ``max_bytes``: a longer body, counted decompressed, is a ``Failure``, and the rest of it is not read.
      This also holds for the body of a redirect, but not for that of a 401 that ``HTTPDigestAuth`` answers
      and reads itself. Default: no limit. All bodies are held in memory until the run is over.
    - ``max_workers``: default 32 threads, whatever the number of cpus, since they only wait.

    The request:

    - ``method``, ``headers``, and in ``kwargs`` whatever else ``Session.request`` takes, such as
      ``kwargs={"params": …, "json": …, "allow_redirects": False}``. They are sent with every request, so pass
      contents instead of an open file or an iterator, which can be read only once.
    - ``session``: a function that creates a ``requests.Session`` with whatever you need (``auth``,
      ``proxies``, ``verify``, adapters). Each session is used by one thread at a time, kept open between
      URLs, and closed at the end. Cookies that a server sets are forgotten at the end of their request.

    With a ``checkpoint``:

    - A journal holds the answers to one kind of request. If a later run has another ``method``, or other
      ``headers`` or ``kwargs`` (except ``proxies`` and ``verify``), it raises a ValueError that says what
      differs. Not compared are the ``session`` function (the place for what changes with every run, such as a
      token), the contents of an object such as an ``AuthBase`` (only its type is), and which URL a key of a
      mapping stands for.
    - Of a request, the journal keeps the method, the URL (with ``params``) and digests, so in such a run the
      ``request`` of a response or error has no headers and no body. What the server sent is kept in full, and
      so is the text of an error, even if ``requests`` quotes in it what it could not send.

    All other options are those of ``run_parallel``, except for ``executor``, ``key``, ``args`` and
    ``star``; ``then`` returns further URLs instead of tasks, each of which is fetched once.

    >>> from parallelkit.http import fetch
    >>> results = fetch(["http://127.0.0.1:1/"], retries=0)  # nobody listens there
    >>> type(results.failures["http://127.0.0.1:1/"].error).__name__
    'ConnectionError'

    Needs requests: ``pip install 'parallelkit[http]'``. Costs about 1 ms per request beyond the wait.
    Raises TypeError or ValueError for bad arguments before anything is sent.
    """
    method = check_method(method)
    check_call(urls, session, options)
    headers = check_headers(headers)
    connect_timeout = check_seconds("connect_timeout", connect_timeout)
    read_timeout = check_seconds("read_timeout", read_timeout)
    if per_host is not None:
        check_count("per_host", per_host)
    if max_bytes is not None:
        max_bytes = check_count("max_bytes", max_bytes)
    limits = [Pause(), *as_limits(options.pop("limits", None))]
    if per_host is not None:
        limits.append(ConcurrencyLimit(per_host, by=host))
    retries = retries_for(method, options.pop("retries", None))
    options.setdefault("max_workers", WIDTH)
    sessions = Sessions(session or new_session())
    timeouts = (connect_timeout, read_timeout)
    timeout = check_timeout("timeout", options.get("timeout"))
    sent = Sent(method, headers, check_more(options.pop("kwargs", None)))
    recorded = options.get("checkpoint") is not None
    fetcher = Fetcher(sent, sessions, timeouts, timeout, max_bytes, recorded)
    seeds, key, seen = seeds_of(urls, once=method in IDEMPOTENT)
    if options.get("then") is not None:
        options["then"] = follow(options["then"], fetcher, seen)
    try:
        return run_parallel(fetcher, seeds, key=key, limits=limits, retries=retries, **options)
    finally:
        fetcher.close()


def new_session() -> Callable[[], Session]:
    """Return the default maker of sessions; without ``requests``, raise an ImportError that says what to install."""
    try:
        from requests import Session
    except ImportError as error:
        message = "parallelkit.http needs requests: pip install 'parallelkit[http]'"
        raise ImportError(message, name="requests") from error
    return Session


def host(url: str) -> str | None:
    """Return host and port of a URL, as a group for limits; None if it has no host (its request will say so).

    >>> host("https://Example.org:8443/a?b"), host("https://example.org:443"), host("nonsense")
    ('example.org:8443', 'example.org', None)
    """
    try:
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2].lower()
        return place.removesuffix(USUAL_PORTS.get(parts.scheme, ":")) or None
    except ValueError:
        return None


class Pause(RateLimit):
    """A rate limit too high to matter, there to be paused: so a Retry-After holds up all URLs of its host."""

    def __init__(self) -> None:
        super().__init__(10**9, per=0.001, by=host)

    def __repr__(self) -> str:
        return PAUSES


def retries_for(method: str, retries: Any) -> Any:
    """The retries of the run: by default only for idempotent methods, and only after errors that may be transient."""
    if retries is None:
        retries = 2 if method in IDEMPOTENT else 0
    if as_whole(retries) is not None:
        return Retry(retries, on=is_transient)
    if isinstance(retries, Retry) and retries.on is Exception:
        return replace(retries, on=is_transient)
    return retries


def is_transient(error: BaseException) -> bool:
    """Whether an error may be transient, so that another try may succeed."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError):
        return error.response is not None and error.response.status_code in TRANSIENT
    if isinstance(error, exceptions.SSLError):
        return broke_off(error)  # by its class a ConnectionError, but a certificate does not change
    transient = (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError, TaskTimeout)
    return isinstance(error, transient)


# Checks at the call. ``run_parallel`` checks the rest.


def check_method(method: Any) -> str:
    """Return the method in upper case."""
    if not isinstance(method, str):
        raise TypeError(f"method must be a str, got {method!r}")
    if not is_token(method):
        raise ValueError(f"method must be a word such as 'GET', got {method!r}")
    return method.upper()


def check_call(urls: Any, session: Any, options: Mapping[str, Any]) -> None:
    """Raise TypeError unless ``urls`` is an iterable, ``session`` a function, and each option one of ``fetch``."""
    if isinstance(urls, (str, bytes)):
        raise TypeError(f"urls must be an iterable of URLs, got the one {urls!r}; pass it in a list")
    if not isinstance(urls, Iterable):
        raise TypeError(f"urls must be an iterable of URLs, got {urls!r}")
    if session is not None and not callable(session):
        raise TypeError(f"session must be a function that makes a requests.Session, got {session!r}")
    if isinstance(pair := options.get("timeout"), tuple):
        two = "the two of requests are connect_timeout and read_timeout"
        raise TypeError(f"timeout must be a number of seconds, got {pair!r}; {two}")
    for name in NOT_OURS.intersection(options):
        where = "runs in threads, with the URLs, or the keys of a mapping of URLs, as keys"
        raise TypeError(f"{name} is not an option of fetch, which {where}")
    for name in OF_A_REQUEST.intersection(options):
        raise TypeError(f"{name} is not an option of fetch; {what_a_request_takes(name)}")
    known = sorted({*OURS, *RunOptions.__annotations__} - NOT_OURS)
    for name in options:
        if name not in known and name not in ANSWERED:
            hint = did_you_mean(name, known, ELSEWHERE)
            hint = hint or f"the options are {', '.join(known)}; {what_a_request_takes(name)}"
            raise TypeError(f"unknown option {name!r}; {hint}")


def what_a_request_takes(name: str) -> str:
    """A hint for an argument of ``Session.request``."""
    return f"what a request takes goes into kwargs={{{name!r}: ...}}"


def check_more(kwargs: Any) -> dict[str, Any]:
    """Return the further arguments of a request as a dict; raises TypeError for one that cannot be every request's."""
    checked = check_kwargs("kwargs", kwargs)
    for name in SET_HERE.intersection(checked):
        own = "its options method, headers, connect_timeout and read_timeout"
        raise TypeError(f"kwargs must not have {name!r}, which fetch sets by itself, from {own}")
    for name in ITERATED:
        if is_read_once(checked.get(name)):
            raise TypeError(
                f"kwargs[{name!r}] must not have an open file or an iterator, of which only the first request "
                "would have anything; pass what it contains"
            )
    return checked


def check_headers(headers: Any) -> dict[str, str]:
    """Return the headers as a dict; raises TypeError or ValueError for a value that cannot be sent."""
    checked = check_kwargs("headers", headers)
    for name, value in checked.items():
        if not is_token(name):
            raise ValueError(f"headers must have names such as 'X-Token', got {name!r}")
        if not (value is None or isinstance(value, (str, bytes))):  # None leaves out a header of the session
            raise TypeError(f"headers[{name!r}] must be a str, got {value!r}")
        if value and not is_line(value):  # the message does not quote it: there may be a password in it
            raise ValueError(
                f"headers[{name!r}] must be one line of Latin-1 that does not begin with a space; "
                "what was read from a file may end in a line break"
            )
    return checked
