"""What ``http.fetch`` sends with every URL: if it can be sent, how a journal knows it, and how it is kept out of there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import date, time, timedelta
from numbers import Number
from typing import Any
from uuid import UUID

from parallelkit._journal._identity import Facts, digest, is_plain, text_of

NOT_COMPARED = frozenset({"proxies", "verify"})  # they change how a request is sent, not what it asks for
SENT_AS_TEXT = (str, Number, date, time, timedelta, UUID)  # sent as ``str`` makes them
OF_A_REQUEST = frozenset(  # what Session.request takes that is no option of fetch
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
TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110 §5.6.2


@dataclass(frozen=True)
class Sent:
    """What is sent with every URL. ``more``: further arguments of ``Session.request``."""

    method: str
    headers: Mapping[str, str]
    more: Mapping[str, Any]

    def facts(self) -> Facts:
        """Yield what the answer depends on, each as a digest, since there may be a password in it."""
        yield "method", digest(ascii(self.method))
        for name, value in self.headers.items():
            yield f"header {name.lower()!a}", digest(in_full(value))
        for name, value in self.more.items():
            if name not in NOT_COMPARED and value is not None:
                yield f"keyword {name!a}", digest(in_full(value))


def in_full(value: Any) -> str:
    """Return a text that is equal for values that are sent alike, nested ones included; of other objects the type counts.

    >>> in_full({"b": [1, None], "a": "x"}) == in_full({"a": "x", "b": (1, None)})
    True
    """
    if isinstance(value, (bytearray, memoryview)):
        value = bytes(value)
    if isinstance(value, SENT_AS_TEXT) and not is_plain(value):
        return ascii(str(value))
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        return text_of(value, {})
    if isinstance(value, Mapping):
        pairs = (f"{in_full(name)}: {in_full(part)}" for name, part in value.items())
        return f"{{{', '.join(sorted(pairs))}}}"
    parts = map(in_full, value)
    return f"[{', '.join(sorted(parts) if isinstance(value, Set) else parts)}]"


def is_read_once(value: Any) -> bool:
    """Whether a value, or a part of it, is a file or an iterator, of which nothing is left after the first request.

    >>> is_read_once({"scan": ("scan.png", b"...")}), is_read_once([("id", iter("ab"))])
    (False, True)
    """
    if isinstance(value, Mapping):
        return any(map(is_read_once, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(is_read_once, value))
    return isinstance(value, Iterator) or hasattr(value, "read")


def is_token(text: str) -> bool:
    """Whether a text can be a method, or the name of a header.

    >>> is_token("X-Token"), is_token("X Token"), is_token("X:"), is_token("")
    (True, False, False, False)
    """
    return TOKEN.fullmatch(text) is not None


def is_line(value: str | bytes) -> bool:
    r"""Whether a text can be the value of a header.

    >>> is_line("Bearer 1"), is_line(b"from a file\n"), is_line(" 1"), is_line("€")
    (True, False, False, False)
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return ord(max(text)) < 256 and not (text[0].isspace() or "\n" in text or "\r" in text)


def forget_sent(response: Any, request: Any = None) -> None:
    """Strip a request, and those that led to a response, of all but method and URL."""
    from requests import PreparedRequest, Response
    from requests.hooks import default_hooks
    from requests.structures import CaseInsensitiveDict

    responses = (response, *response.history) if isinstance(response, Response) else ()
    for each in (request, *(one.request for one in responses)):
        if isinstance(each, PreparedRequest):
            each.headers, each.body, each.hooks = CaseInsensitiveDict(), None, default_hooks()
            each._cookies = None
