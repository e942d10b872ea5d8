"""The I/O half: five HTTP sources are asked about a product, in threads; one is slow, three misbehave."""

from __future__ import annotations

from pprint import pprint

from parallelkit._demo._claims import Claims
from parallelkit._demo._sources import SOURCES, SourceServer
from parallelkit._errors import TaskTimeout
from parallelkit._results import Results
from parallelkit._retry import Retry
from parallelkit._run import run_parallel

PRODUCT = "espresso machine"
TIMEOUT = 1.5  # seconds
COST = 0.03  # dollars a call

Answers = Results[str, dict[str, str]]


def ask(source: str, url: str, product: str) -> dict[str, str]:
    """Ask one source about a product: an ordinary function that uses an ordinary client."""
    import requests

    response = requests.get(f"{url}/{source}", params={"product": product}, timeout=30)
    response.raise_for_status()
    answer: dict[str, str] = response.json()
    return answer


def is_overload(error: BaseException) -> bool:
    """Whether the server answered that it is overloaded: then it helps to ask again."""
    return getattr(getattr(error, "response", None), "status_code", None) == 503


def research(url: str, max_workers: int) -> Answers:
    """Ask every source about the product, ``max_workers`` of them at a time."""
    return run_parallel(
        ask,
        list(SOURCES),
        key=str,
        args=(url, PRODUCT),
        max_workers=max_workers,
        timeout=TIMEOUT,
        retries=Retry(2, on=is_overload),
    )


def show_research(claims: Claims) -> None:
    """Ask one source at a time, then all at once; print the answers, the report and the claims."""
    print(f"I/O: five local HTTP sources, asked about an {PRODUCT}, in threads, timeout {TIMEOUT:g} s\n")
    for source, behaviour in SOURCES.items():
        print(f"  {source:<20} {behaviour}")
    with SourceServer() as server:
        sequential = research(server.url, max_workers=1)
    with SourceServer() as server:
        results = research(server.url, max_workers=len(SOURCES))
    print("\nThe answers by source:\n")
    pprint(results.to_dict(default=None), sort_dicts=False, width=110)
    print(f"\n{results.report(cost_per_attempt=COST)}\n")
    _check_outcomes(claims, results)
    _check_costs(claims, results, sequential, server)


def _check_outcomes(claims: Claims, results: Answers) -> None:
    answers, outcomes = results.to_dict(default=None), results.outcomes
    claims.claim(
        "three sources answered, each under its own key; None for the two that failed",
        [answer and answer["source"] for answer in answers.values()]
        == ["amazon_reviews", "expert_reviews", "price_comparison", None, None],
    )
    retried = outcomes["price_comparison"]
    claims.claim(f"the overloaded source was asked {retried.attempts} times", retried.attempts == 3)
    hung, gone = results.failures["youtube_reviews"], results.failures["reddit_discussions"]
    claims.claim(
        f"the hanging source was abandoned after {hung.duration:.2f} s: {type(hung.error).__name__}",
        isinstance(hung.error, TaskTimeout) and TIMEOUT <= hung.duration < TIMEOUT + 0.5,
    )
    claims.claim(
        f"the source that is gone was asked once: {gone.error}",
        gone.attempts == 1 and "410" in str(gone.error),
    )


def _check_costs(claims: Claims, results: Answers, sequential: Answers, server: SourceServer) -> None:
    calls, wall, sequential_wall = results.summary.attempts, results.summary.wall, sequential.summary.wall
    claims.claim(
        f"the server was called {calls} times, as when asked one at a time: ${calls * COST:.2f} either way",
        server.asked.total() == calls == sequential.summary.attempts == 7,
    )
    claims.claim(
        f"all at once took {wall:.2f} s, one at a time {sequential_wall:.2f} s (both measured)",
        wall < sequential_wall,
    )
