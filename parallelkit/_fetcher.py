"""What ``http.fetch`` does in a worker: one request on a session of its own, the body read within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from io import BytesIO
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from parallelkit._errors import TaskTimeout
from parallelkit._identity import Telling
from parallelkit._lost import is_a
from parallelkit._sent import Sent, forget_sent
from parallelkit._system import monotonic

if TYPE_CHECKING:
    from requests import Response, Session
    from requests.cookies import RequestsCookieJar

CHUNK = 1 << 16


class Fetcher(Telling):
    """A function from URL to response; it raises what is wrong with it, a status of 400 or more included.

    ``timeouts``: seconds to connect, and without a byte; ``timeout``: seconds for all of it, or None.
    ``recorded``: whether answers come into a journal.
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
        self._timeouts = (min(connect, timeout or connect), min(read, timeout or read))
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._recorded = recorded
        self._reading: set[Response] = set()

    def __call__(self, url: str) -> Response:
        try:
            response = self._ask(url)
        except Exception as error:
            if self._recorded:
                forget_sent(attribute_of(error, "response"), attribute_of(error, "request"))
            raise
        if self._recorded:
            forget_sent(response)
        return response

    def _ask(self, url: str) -> Response:
        sent, end_at = self._sent, None if self._timeout is None else monotonic() + self._timeout
        with self._sessions.lend() as session, Redirects(session, partial(self._read, end_at=end_at)):
            try:
                response = session.request(
                    sent.method, url, headers=sent.headers, timeout=self._timeouts, stream=True, **sent.more
                )
            except Exception as error:
                unread = attribute_of(error, "response")
                # A hook of the caller's has judged it by its status; unless it was we who broke off.
                if unread is not None and not getattr(unread.raw, "closed", False):
                    self._read(unread, end_at)
                raise
            self._read(response, end_at)
        response.raise_for_status()
        return response

    def _read(self, response: Response, end_at: float | None) -> None:
        """Read the whole body, which ``response.content`` would do without any bound."""
        self._reading.add(response)
        try:
            body = self._body(response, end_at)
        except BaseException as error:
            response.close()  # what is left of the body would come before the next answer
            known = translated(error)
            if known is None:
                raise
            raise known from error
        finally:
            self._reading.discard(response)
        raw, response.raw = response.raw, body
        len(response.content)  # the response keeps what it is asked for
        response.raw = raw

    def _body(self, response: Response, end_at: float | None) -> Body:
        body = Body()
        while chunk := read_some(response.raw):
            body.write(chunk)
            if self._max_bytes is not None and body.tell() > self._max_bytes:
                raise too_large(response, self._max_bytes)
            if end_at is not None and monotonic() >= end_at:
                raise TaskTimeout(f"the body took longer than the timeout of {self._timeout:g} s")
        return body

    def close(self) -> None:
        """Close all sessions, and cut off what abandoned threads still read, so that they end."""
        self._sessions.close()
        for response in list(self._reading):
            with suppress(Exception):  # it came to its end this moment, or the caller's adapter cannot do it
                response.raw.shutdown()


class Redirects:
    """Has ``read`` read what is sent with a redirect, which ``requests`` would do without any bound.

    What is broken there it takes no notice of, and neither do we. No generator: see ``Loan``.
    """

    def __init__(self, session: Session, read: Callable[[Response], None]) -> None:
        self._session, self._read = session, read

    def __enter__(self) -> None:
        self._own = vars(self._session).get("get_redirect_target")  # where it is not that of the class
        self._target = self._session.get_redirect_target
        self._session.get_redirect_target = self._read_first  # type: ignore[method-assign]  # of this one, for this request

    def __exit__(self, *raised: object) -> None:
        del self._session.get_redirect_target
        if self._own is not None:
            self._session.get_redirect_target = self._own  # type: ignore[method-assign]  # as it was

    def _read_first(self, resp: Response) -> str | None:
        from requests import exceptions

        target = self._target(resp)
        if target:
            with suppress(exceptions.ChunkedEncodingError, exceptions.ContentDecodingError):
                self._read(resp)
        return target


class Sessions:
    """Sessions in use by one thread at a time each, the one used last first: so no more than needed are made.

    After each request a session forgets the cookies that it got: no task hangs on what another did.
    """

    def __init__(self, make: Callable[[], Session]) -> None:
        self._make = make
        self._idle: deque[tuple[Session, RequestsCookieJar]] = deque()
        self._closed = False

    def lend(self) -> Loan:
        """A session for the block."""
        return Loan(self)

    def take(self) -> tuple[Session, RequestsCookieJar]:
        """A session that nobody uses, and the cookies with which it begins."""
        try:
            return self._idle.pop()
        except IndexError:
            session = made_by(self._make)
            own_pools(session)
            return session, session.cookies.copy()

    def give_back(self, session: Session, cookies: RequestsCookieJar) -> None:
        """The request is over."""
        session.cookies = cookies.copy()
        own_pools(session)  # at the end, when it knows what proxies it needs
        self._idle.append((session, cookies))
        if self._closed:  # after the append: close() or we see the other
            self.close()

    def close(self) -> None:
        """Close those that are idle, and the others when they come back."""
        self._closed = True
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                self._idle.pop()[0].close()


class Loan:
    """See ``Sessions.lend``. No generator: contextlib would set attributes of an error that may refuse them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def __enter__(self) -> Session:
        self._taken = self._sessions.take()
        return self._taken[0]

    def __exit__(self, *raised: object) -> None:
        self._sessions.give_back(*self._taken)


def made_by(make: Callable[[], Session]) -> Session:
    """What it makes; TypeError where that is no session."""
    from requests import Session

    session = make()
    if not isinstance(session, Session):
        raise TypeError(f"session must make a requests.Session, {make!r} gave {session!r}")
    return session


def own_pools(session: Session) -> None:
    """See that connections are closed when their pool leaves the session, or the session ends.

    urllib3 leaves that to the garbage collector, and every response and error refers to its pool: a run
    over many hosts would run out of descriptors.
    """
    for adapter in session.adapters.values():
        managers = [getattr(adapter, "poolmanager", None), *getattr(adapter, "proxy_manager", {}).values()]
        for manager in managers:
            if manager is not None:
                manager.pools.dispose_func = methodcaller("close")


class Body(BytesIO):
    """A body that has been read; ``requests`` takes it over in one piece, without a copy."""

    def stream(self, amount: int, decode_content: bool) -> Iterator[bytes]:
        """The whole of it."""
        yield self.getvalue()


def read_some(raw: Any) -> bytes:
    """What has come in of a body, at least a byte; none at its end. An adapter's own kind of file is read as one."""
    if hasattr(raw, "stream"):
        return raw.read1(CHUNK, decode_content=True)  # type: ignore[no-any-return]  # urllib3's
    return raw.read(CHUNK)  # type: ignore[no-any-return]  # a file


def attribute_of(error: Exception, name: str) -> Any:
    """The response or request that an error carries, if it does; one that refuses to be asked carries none."""
    try:
        return getattr(error, name, None)
    except Exception:
        return None


def translated(error: BaseException) -> Exception | None:
    """An error of urllib3 while a body is read, as ``requests`` would raise it; None for any other."""
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


def too_large(response: Response, max_bytes: int) -> Exception:
    """The error for a body beyond the bound."""
    from requests import RequestException

    return RequestException(f"the body is longer than max_bytes of {max_bytes}", response=response)
