"""``fetch``: many URLs at once over ``requests``, with timeouts, retries and regard for the other side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload
from urllib.parse import urlsplit

from parallelkit._errors import TaskTimeout
from parallelkit._fetcher import Fetcher, Sessions
from parallelkit._limits import ConcurrencyLimit, RateLimit, as_limits
from parallelkit._numbers import as_whole, check_count, check_seconds, check_timeout
from parallelkit._options import RunOptions
from parallelkit._results import Results
from parallelkit._retry import Retry
from parallelkit._run import run_parallel
from parallelkit._sent import Sent
from parallelkit._tasks import check_kwargs
from parallelkit._told import PAUSES
from parallelkit._urls import follow, seeds_of

if TYPE_CHECKING:
    from requests import Response, Session

__all__ = ["fetch"]

K = TypeVar("K")

WIDTH = 32  # threads; they only wait
IDEMPOTENT = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})  # RFC 9110 §9.2.2
PASSING = frozenset({429, 500, 502, 503, 504})  # statuses that another try may change
NOT_OURS = frozenset({"args", "executor", "key", "star"})
SET_HERE = frozenset({"headers", "method", "stream", "timeout", "url"})
OF_A_REQUEST = frozenset(  # what else Session.request takes
    {
        "allow_redirects",
        "auth",
        "cert",
        "cookies",
        "data",
        "files",
        "hooks",
        "json",
        "params",
        "proxies",
        "verify",
    }
)


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
    """Fetch many URLs at once; give back every ``requests.Response`` by its URL.

    A status of 400 or more is a ``Failure`` with the ``requests.HTTPError``, whose ``response`` has
    the body; so is every other error, of its own URL only. A URL that comes twice is fetched once
    (with POST or PATCH it is a ValueError, since each would have its effect). Of a mapping the
    values are fetched, under its keys.

    What is done to the other side:

    - ``per_host``: requests at a time to one host and port, default 6; None for no such limit.
      ``limits`` of yours, whose ``by`` is given the URL, come on top of that.
    - A host that answers with Retry-After is left alone until then by all its URLs.
    - ``retries``: default 2 extra tries, after up to 0.1 s and up to 0.2 s, where the method may be
      repeated (GET, HEAD, OPTIONS, PUT, DELETE, TRACE), else none. Tried again is what may pass: connection
      errors, timeouts, broken bodies, and the statuses 429, 500, 502, 503 and 504. A ``Retry`` with an
      ``on`` of its own decides by itself.

    How long it takes, and how much:

    - ``connect_timeout``, ``read_timeout``: seconds until a connection stands (default 5), and
      without a byte from the other side (30). A server that sends one byte now and then is bounded
      only by ``timeout``, the seconds for a whole attempt (default: none).
    - ``max_bytes``: a longer body, decompressed, also one that comes with a redirect, is a ``Failure``, and
      the rest is not read. Default: no bound; every body is held in memory, and all are held until the run is over.
    - ``max_workers``: default 32 threads, whatever the number of cpus, since they only wait.

    What is sent:

    - ``method``, ``headers``, and as ``kwargs`` what else ``Session.request`` takes, such as
      ``kwargs={"params": …, "json": …, "allow_redirects": False}``.
    - ``session``: a function that makes a ``requests.Session`` with whatever you need (``auth``,
      ``proxies``, ``verify``, adapters). Each is used by one thread at a time, kept alive from URL to
      URL, and closed at the end. Cookies that a server sets last until the end of their request.

    With a ``checkpoint``:

    - A journal holds answers to one question: another ``method``, or other ``headers`` or ``kwargs``
      (``proxies`` and ``verify`` apart), is a ValueError that says what differs. How sessions are made
      does not count, so what changes from run to run, such as a token, belongs there. Nor can be told
      apart what is in an open file, a generator or an object such as an ``AuthBase`` (known by
      its type), or which URL a key of a mapping stands for.
    - Of what was sent, the journal has the method, the URL (with ``params``) and digests; so the ``request``
      of an answer or error has no headers and no body in such a run. What the server has said is in it in
      full, and so is the text of an error, even where ``requests`` quotes in it what it could not send.

    All other options are those of ``run_parallel``, but for ``executor``, ``key``, ``args`` and
    ``star``; ``then`` gives further URLs instead of tasks, each of which is fetched once.

    >>> from parallelkit.http import fetch
    >>> results = fetch(["http://127.0.0.1:1/"], retries=0)  # nobody listens there
    >>> type(results.failures["http://127.0.0.1:1/"].error).__name__
    'ConnectionError'

    Needs requests: ``pip install 'parallelkit[http]'``. Costs about 1 ms a request beside the wait.
    Raises TypeError and ValueError for bad arguments before anything is sent.
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
    sent = Sent(method, headers, check_kwargs("kwargs", options.pop("kwargs", None)))
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
    """What makes sessions by default; ImportError that says what to install, where there is no ``requests``."""
    try:
        from requests import Session
    except ImportError as error:
        message = "parallelkit.http needs requests: pip install 'parallelkit[http]'"
        raise ImportError(message, name="requests") from error
    return Session


def host(url: Any) -> str | None:
    """Host and port of a URL, as a group for limits; None where it has none (its request will say why).

    >>> host("https://Example.org:8443/a?b"), host("nonsense")
    ('example.org:8443', None)
    """
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower() or None
    except (AttributeError, TypeError, ValueError):
        return None


class Pause(RateLimit):
    """Limits nothing by itself; it is there to be paused: Retry-After holds for all URLs of a host."""

    def __init__(self) -> None:
        super().__init__(10**9, per=0.001, by=host)

    def __repr__(self) -> str:
        return PAUSES


def retries_for(method: str, retries: Any) -> Any:
    """The retries of the run: by default only where the method may be repeated, and only of what may pass."""
    if retries is None:
        retries = 2 if method in IDEMPOTENT else 0
    if as_whole(retries) is not None:
        return Retry(retries, on=may_pass)
    if isinstance(retries, Retry) and retries.on is Exception:
        return replace(retries, on=may_pass)
    return retries


def may_pass(error: BaseException) -> bool:
    """Whether another try may end otherwise."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError):
        return error.response is not None and error.response.status_code in PASSING
    if isinstance(error, exceptions.SSLError):
        return False  # a connection error by its class, but a certificate does not change
    passing = (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError, TaskTimeout)
    return isinstance(error, passing)


# The door; what is not checked here ``run_parallel`` checks.


def check_method(method: Any) -> str:
    """The method in capitals."""
    if not isinstance(method, str):
        raise TypeError(f"method must be a str, got {method!r}")
    if not method.isalpha():
        raise ValueError(f"method must be a word such as 'GET', got {method!r}")
    return method.upper()


def check_call(urls: Any, session: Any, options: Mapping[str, Any]) -> None:
    """Raise TypeError for what is no collection of URLs, no maker of sessions, or no option of ``fetch``."""
    if isinstance(urls, (str, bytes)):
        raise TypeError(f"urls must be an iterable of URLs, got the one {urls!r}; pass it in a list")
    if not isinstance(urls, Iterable):
        raise TypeError(f"urls must be an iterable of URLs, got {urls!r}")
    if session is not None and not callable(session):
        raise TypeError(f"session must be a function that makes a requests.Session, got {session!r}")
    for name in NOT_OURS.intersection(options):
        raise TypeError(f"{name} is no option of fetch, which runs in threads and keys by URL")
    for name in OF_A_REQUEST.intersection(options):
        raise TypeError(
            f"{name} is no option of fetch; what a request takes goes into kwargs={{{name!r}: ...}}"
        )
    for name in SET_HERE.intersection(options.get("kwargs") or ()):
        raise TypeError(f"kwargs must not have {name!r}, which fetch sets by itself")


def check_headers(headers: Any) -> dict[str, str]:
    """The headers as a dict; raises TypeError or ValueError for what cannot be sent as such."""
    checked = check_kwargs("headers", headers)
    for name, value in checked.items():
        if not (value is None or isinstance(value, (str, bytes))):  # None leaves out one of the session's
            raise TypeError(f"headers[{name!r}] must be a str, got {value!r}")
        if value and not is_line(value):  # there may be a password in it
            raise ValueError(
                f"headers[{name!r}] must be one line of Latin-1 that begins with no space; "
                "what is read from a file may end in a line break"
            )
    return checked


def is_line(value: str | bytes) -> bool:
    r"""Whether this may be the value of a header.

    >>> is_line("Bearer 1"), is_line(b"from a file\n"), is_line(" 1"), is_line("€")
    (True, False, False, False)
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return ord(max(text)) < 256 and not (text[0].isspace() or "\n" in text or "\r" in text)
