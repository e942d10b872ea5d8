"""What ``http.fetch`` does in a worker: one request on a session that is lent to it, the body read within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from functools import partial
from io import BytesIO
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from parallelkit._errors import TaskTimeout
from parallelkit._http._sent import Sent, forget_sent
from parallelkit._journal._identity import SelfIdentified
from parallelkit._lost import is_a
from parallelkit._raised import attribute_or_none
from parallelkit._system import monotonic

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from requests import Response, Session

CHUNK = 1 << 16  # bytes read of a body at a time
LONGEST = 1e6  # seconds, 11 days; a socket refuses infinity, on some systems more than 24 days, too


class Fetcher(SelfIdentified):
    """Fetches a URL: called with one, returns the response; raises for every error, a status of 400 or more included.

    ``timeouts``: seconds to connect, and seconds without a byte. ``timeout``: seconds for the whole attempt,
    or None. ``recorded``: whether outcomes are written to a journal.
    """

    def __init__(
        self,
        sent: Sent,
        sessions: Sessions,
        timeouts: tuple[float, float],
        timeout: float | None,
        max_bytes: int | None,
        recorded: bool,
    ) -> None:
        super().__init__("parallelkit.http", "fetch", sent.facts)
        self._sent = sent
        self._sessions = sessions
        connect, read = timeouts
        most = min(timeout or LONGEST, LONGEST)
        self._timeouts = (min(connect, most), min(read, most))
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._recorded = recorded
        self._reading: dict[int, Response] = {}  # by id: those of requests-cache cannot be hashed

    def __call__(self, url: str) -> Response:
        try:
            response = self._ask(url)
        except Exception as error:
            if self._recorded:
                forget_sent(attribute_or_none(error, "response"), attribute_or_none(error, "request"))
            raise
        if self._recorded:
            forget_sent(response)
        return response

    def _ask(self, url: str) -> Response:
        sent, end_at = self._sent, None if self._timeout is None else monotonic() + self._timeout
        with Loan(self._sessions) as session, Redirects(session, partial(self._read, end_at=end_at)):
            try:
                response = session.request(
                    sent.method, url, headers=sent.headers, timeout=self._timeouts, stream=True, **sent.more
                )
            except Exception as error:
                unread = attribute_or_none(error, "response")
                # A hook of the caller's may raise before the body is read. A closed body is one that we broke off.
                if unread is not None and not getattr(unread.raw, "closed", False):
                    self._read(unread, end_at)
                raise
            self._read(response, end_at)
        response.raise_for_status()
        return response

    def _read(self, response: Response, end_at: float | None) -> None:
        """Read the whole body within the bounds; ``response.content`` would read without any."""
        self._reading[id(response)] = response
        try:
            body = self._body(response, end_at)
        except BaseException as error:
            response.close()  # else the rest of the body would precede the next response on this connection
            known = translated(error)
            if known is None:
                raise
            raise known from error
        finally:
            self._reading.pop(id(response), None)
        raw, response.raw = response.raw, body
        len(response.content or b"")  # asked for once, so that the response keeps it
        response.raw = raw

    def _body(self, response: Response, end_at: float | None) -> Body:
        body = Body()
        # As those of requests-cache are, which keeps them unpacked, or those that have no body at all.
        is_read = response._content is not False or response.raw is None
        for chunk in (response.content or b"",) if is_read else iter(partial(read_some, response.raw), b""):
            body.write(chunk)
            if self._max_bytes is not None and body.tell() > self._max_bytes:
                raise too_large(response, self._max_bytes)
            if end_at is not None and monotonic() >= end_at:
                raise TaskTimeout(f"the body took longer than the timeout of {self._timeout:g} s")
        return body

    def close(self) -> None:
        """Close all sessions, and break off what abandoned threads still read, so that these threads end."""
        self._sessions.close()
        for response in list(self._reading.values()):
            with suppress(Exception):  # it ended just now, or the caller's own adapter has no shutdown
                response.raw.shutdown()


class Redirects:
    """Within its block, has ``read`` read the body of each redirect, which ``requests`` would read without any bound.

    ``requests`` ignores a broken body there, and so do we. Not a generator, for the reason given in ``Loan``.
    """

    def __init__(self, session: Session, read: Callable[[Response], None]) -> None:
        self._session, self._read = session, read

    def __enter__(self) -> None:
        self._own = vars(self._session).get("get_redirect_target")  # one that the caller set on this session
        self._target = self._session.get_redirect_target
        self._session.get_redirect_target = self._read_first  # type: ignore[method-assign]  # for this request alone

    def __exit__(self, *raised: object) -> None:
        del self._session.get_redirect_target
        if self._own is not None:
            self._session.get_redirect_target = self._own  # type: ignore[method-assign]  # as it was

    def _read_first(self, resp: Response) -> str | None:
        from requests import exceptions

        try:
            target = self._target(resp)
        except Exception:  # it cannot be decoded, say; the error lacks the response, but keeps its connection
            resp.close()
            raise
        if target:
            with suppress(exceptions.ChunkedEncodingError, exceptions.ContentDecodingError):
                self._read(resp)
        return target


class Sessions:
    """A stack of sessions, each lent to one thread at a time; the last one back is lent first, so few are made.

    After each request a session forgets the cookies that it got, so that no task depends on another.
    """

    def __init__(self, make: Callable[[], Session]) -> None:
        self._make = make
        self._idle: deque[tuple[Session, CookieJar]] = deque()
        self._made: dict[int, tuple[Session]] = {}  # by id, to notice one that comes again
        self._closed = False

    def take(self) -> tuple[Session, CookieJar]:
        """Return a session that nobody uses, and its initial cookies."""
        try:
            return self._idle.pop()
        except IndexError:
            session = made_by(self._make)
            if self._made.setdefault(id(session), one := (session,)) is not one:
                raise TypeError(
                    f"session must make a new requests.Session each time, {self._make!r} gave the same one again; "
                    "two threads must not use the same one"
                ) from None
            return session, copied(session.cookies)

    def give_back(self, session: Session, cookies: CookieJar) -> None:
        """Take a session back after its request, with the cookies that it began with."""
        session.cookies = copied(cookies)  # type: ignore[assignment]  # of the same kind as they were
        own_pools(session)  # each time: the request may have added a proxy's pool
        self._idle.append((session, cookies))
        if self._closed:  # after the append: either close() has seen the session, or this sees the flag
            self.close()

    def close(self) -> None:
        """Close the idle sessions now, and the others as they come back."""
        self._closed = True
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                self._idle.pop()[0].close()


class Loan:
    """Lends a session to a ``with`` block. Not a generator: contextlib sets attributes of the error, which may not allow it."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def __enter__(self) -> Session:
        self._taken = self._sessions.take()
        return self._taken[0]

    def __exit__(self, *raised: object) -> None:
        self._sessions.give_back(*self._taken)


def made_by(make: Callable[[], Session]) -> Session:
    """Return the session that ``make`` makes; TypeError if it makes anything else."""
    from requests import Session

    session = make()
    if not isinstance(session, Session):
        raise TypeError(f"session must make a requests.Session, {make!r} gave {session!r}")
    return session


def copied(cookies: CookieJar) -> CookieJar:
    """Copy a cookie jar, which may also be one of the standard library, such as a ``MozillaCookieJar``."""
    same = copy(cookies)
    same.clear()
    for cookie in cookies:
        same.set_cookie(copy(cookie))
    return same


def own_pools(session: Session) -> None:
    """Have connections closed when their pool leaves the session, or the session is closed.

    urllib3 leaves that to the garbage collector, but every response and error refers to its pool, so a
    run over many hosts would run out of file descriptors.
    """
    for adapter in session.adapters.values():
        managers = [getattr(adapter, "poolmanager", None), *getattr(adapter, "proxy_manager", {}).values()]
        for manager in managers:
            if manager is not None:
                manager.pools.dispose_func = methodcaller("close")


class Body(BytesIO):
    """A body that has been read; ``requests`` takes it in one piece, without a copy."""

    def stream(self, amount: int, decode_content: bool) -> Iterator[bytes]:
        """Yield the whole body."""
        yield self.getvalue()


def read_some(raw: Any) -> bytes:
    """Read what has arrived of a body, at least a byte unless it has ended."""
    from urllib3 import HTTPResponse

    if isinstance(raw, HTTPResponse):
        return raw.read1(CHUNK, decode_content=True)
    return raw.read(CHUNK)  # type: ignore[no-any-return]  # a file-like object of the caller's own adapter, or of VCR.py


def translated(error: BaseException) -> Exception | None:
    """Translate an error that urllib3 raised while a body was read into that of ``requests``; None for any other."""
    from requests import exceptions
    from urllib3.exceptions import DecodeError, ProtocolError, ReadTimeoutError, SSLError

    for kind, known in (
        (ProtocolError, exceptions.ChunkedEncodingError),
        (DecodeError, exceptions.ContentDecodingError),
        (ReadTimeoutError, exceptions.ReadTimeout),
        (SSLError, exceptions.SSLError),
    ):
        if is_a(error, kind):
            return known(error)
    return None


def broke_off(error: BaseException) -> bool:
    """Whether the server closed a connection with TLS, which may be transient, unlike other errors of TLS."""
    from ssl import SSLEOFError

    at: BaseException | None = error
    while at is not None and not isinstance(at, SSLEOFError):
        at = at.__cause__ or at.__context__
    return at is not None


def too_large(response: Response, max_bytes: int) -> Exception:
    """The error for a body longer than ``max_bytes``."""
    from requests import RequestException

    return RequestException(f"the body is longer than max_bytes of {max_bytes}", response=response)
