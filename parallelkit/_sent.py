"""What ``http.fetch`` sends with every URL: how a journal tells it from what another run sends, and that it is not kept there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import date, time, timedelta
from numbers import Number
from typing import Any
from uuid import UUID

from parallelkit._identity import Facts, digest, is_plain, text_of

NO_QUESTION = frozenset({"proxies", "verify"})  # by which way, and how carefully, but not what is asked
SPOKEN = (str, Number, date, time, timedelta, UUID)  # sent as ``str`` makes them


@dataclass(frozen=True)
class Sent:
    """What goes with every URL; ``more``: what else ``Session.request`` takes."""

    method: str
    headers: Mapping[str, str]
    more: Mapping[str, Any]

    def facts(self) -> Facts:
        """What the answer hangs on, each by its digest: there may be a password in it."""
        yield "method", digest(ascii(self.method))
        for name, value in self.headers.items():
            yield f"header {name.lower()!a}", digest(in_full(value))
        for name, value in self.more.items():
            if name not in NO_QUESTION and value is not None:
                yield f"keyword {name!a}", digest(in_full(value))


def in_full(value: Any) -> str:
    """A text that is the same for what is sent alike, down to what is in dicts and lists; an open file is its type alone.

    >>> in_full({"b": [1, None], "a": "x"}) == in_full({"a": "x", "b": (1, None)})
    True
    """
    if isinstance(value, (bytearray, memoryview)):
        value = bytes(value)
    if isinstance(value, SPOKEN) and not is_plain(value):
        return ascii(str(value))
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        return text_of(value, {})
    if isinstance(value, Mapping):
        pairs = (f"{in_full(name)}: {in_full(part)}" for name, part in value.items())
        return f"{{{', '.join(sorted(pairs))}}}"
    parts = map(in_full, value)
    return f"[{', '.join(sorted(parts) if isinstance(value, Set) else parts)}]"


def forget_sent(response: Any, request: Any = None) -> None:
    """Leave of the requests that led to this response, and of this one, method and URL alone."""
    from requests import PreparedRequest
    from requests.hooks import default_hooks
    from requests.structures import CaseInsensitiveDict

    for each in (request, *requests_of(response)):
        if isinstance(each, PreparedRequest):
            each.headers, each.body, each.hooks = CaseInsensitiveDict(), None, default_hooks()
            each._cookies = None


def requests_of(response: Any) -> Iterator[Any]:
    """That of a response, and those that were redirected before it."""
    from requests import Response

    if isinstance(response, Response):
        yield from (each.request for each in (response, *response.history))
