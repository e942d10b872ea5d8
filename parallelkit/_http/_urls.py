"""Which URLs ``fetch`` requests: those that it is given and those that ``then`` finds, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from parallelkit._coroutine_functions import check_called
from parallelkit._http._fetcher import Fetcher
from parallelkit._numbers import length_of
from parallelkit._outcomes import Outcome
from parallelkit._tasks import Task

if TYPE_CHECKING:
    from requests import Response


def seeds_of(urls: Any, once: bool) -> tuple[Any, Callable[[str], str] | None, set[str]]:
    """Return the items of the run, the ``key`` function for them, and the set of URLs seen so far.

    ``once``: drop a URL that comes again. A URL that is no str raises TypeError, here if ``urls`` is sized,
    else when it is read.
    """
    if isinstance(urls, Mapping):
        return urls, None, set(each_of(urls.values()))
    seen: set[str] = set()
    wanted = (url for url in each_of(urls) if not once or is_new(url, seen))
    return wanted if length_of(urls) is None else list(wanted), itself, seen


def each_of(urls: Iterable[Any]) -> Iterator[str]:
    """Yield the URLs, each checked to be a str: ``requests`` would convert anything else to one, and request it."""
    try:
        for position, url in enumerate(urls):
            if not isinstance(url, str):
                raise TypeError(f"urls must be str, got {url!r} at position {position}")
            yield url
    finally:
        if isinstance(urls, Generator):
            urls.close()


def is_new(url: str, seen: set[str]) -> bool:
    """Whether a URL is not in ``seen``; adds it."""
    before = len(seen)
    seen.add(url)
    return len(seen) > before


def itself(url: str) -> str:
    """The key of a URL."""
    return url


def follow(
    then: Callable[[Outcome[Any, Any]], Iterable[str] | None], fetcher: Fetcher, seen: set[str]
) -> Callable[[Outcome[Any, Any]], list[Task[Response]]]:
    """The ``then`` of the run: makes tasks of those URLs that the caller's ``then`` returns and that are new.

    Raises TypeError for one that cannot be called.
    """
    if not callable(then):
        raise TypeError(f"then must be callable, got {then!r}")
    check_called("then", then)

    def children(outcome: Outcome[Any, Any]) -> list[Task[Response]]:
        urls = then(outcome) or ()
        if isinstance(urls, str) or not isinstance(urls, Iterable):
            raise TypeError(f"then must return an iterable of URLs, got {urls!r}")
        urls = list(urls)
        for url in urls:
            if not isinstance(url, str):
                raise TypeError(f"then must return URLs, which fetch makes tasks of, got {url!r}")
        return [Task(fetcher, url, key=url) for url in urls if is_new(url, seen)]

    return children
