"""``then``: tasks that make tasks."""

import pytest

from parallelkit import InputError, RateLimit, Task, iter_parallel, run_parallel

LINKS = {"/": ["/a", "/b"], "/a": ["/a/1"], "/b": ["/b/1", "/b/2"]}


def follow(outcome):
    """One task for every link of the page."""
    return [Task(visit, link, key=link) for link in LINKS.get(outcome.key, [])]


def visit(page):
    return page.upper()


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
def test_a_crawl_follows_links(executor):
    """Every page reached is visited once, on one worker without a deadlock, and knows its parent."""
    results = run_parallel(visit, ["/"], key=str, executor=executor, max_workers=1, then=follow)
    assert {page: page.upper() for page in ["/", "/a", "/b", "/a/1", "/b/1", "/b/2"]} == dict(results.items())
    parents = {key: outcome.parent for key, outcome in results.outcomes.items()}
    assert {"/": None, "/a": "/", "/b": "/", "/a/1": "/a", "/b/1": "/b", "/b/2": "/b"} == parents


def test_a_stream_grows_too():
    """The outcomes of children are yielded like any other."""
    seen = {outcome.key: outcome.parent for outcome in iter_parallel(visit, ["/"], key=str, then=follow)}
    assert {"/": None, "/a": "/", "/b": "/", "/a/1": "/a", "/b/1": "/b", "/b/2": "/b"} == seen


def test_search_then_deep_dive():
    """The tasks form grows as well: two searches, then one look at each thing found."""
    searches = {"x": lambda: [1, 2], "y": lambda: [3]}
    results = run_parallel(
        searches,
        then=lambda done: [Task(pow, n, 2, key=n) for n in done.value] if done.parent is None else (),
    )
    assert {1: 1, 2: 4, 3: 9} == {key: value for key, value in results.items() if key in (1, 2, 3)}


def test_failures_are_followed_too():
    """``then`` sees failed outcomes: a fallback is one line."""

    def fallback(outcome):
        return (
            () if outcome.ok or outcome.parent is not None else [Task(str, "fallback", key=(outcome.key, 2))]
        )

    results = run_parallel(lambda n: 1 / n, [0, 1], then=fallback)
    assert "fallback" == results[0, 2]
    assert {0} == set(results.failures)


def test_children_without_keys_get_their_place_in_the_order_of_admission():
    """The default key of a child is its index."""
    results = run_parallel(
        abs, [-1, -2], max_workers=1, then=lambda o: [Task(abs, -9)] if o.key == 0 else None
    )
    assert [0, 1, 2] == list(results)
    assert 9 == results[2]


@pytest.mark.parametrize(
    ("children", "text"),
    [
        (lambda outcome: 1 / 0, "then raised ZeroDivisionError"),
        (lambda outcome: [3], "tasks must be callables or Task objects, got 3"),
        (lambda outcome: [Task(abs, 1, key="a")], "key must be unique, got 'a' at positions 0 and 2"),
    ],
)
def test_what_is_wrong_with_then_ends_the_input_and_loses_nothing(children, text):
    """All that was read is run and delivered with the InputError."""
    with pytest.raises(InputError, match=text) as caught:
        run_parallel(abs, ["a", "b"], key=str, kwargs={}, then=children, executor="inline")
    assert 2 == len(caught.value.results)


def test_groups_and_priorities_see_a_childs_first_argument():
    """``by`` is given what the items of the run are, also for the tasks that ``then`` makes."""
    asked = []

    def host(page):
        asked.append(page)
        return page[:2]

    run_parallel(visit, ["/"], key=str, then=follow, limits=RateLimit(100, per=1, by=host))
    assert {"/", "/a", "/b", "/a/1", "/b/1", "/b/2"} == set(asked)


def test_a_stopped_run_asks_for_no_more_tasks():
    """A crawl without end is ended by ``run_timeout``."""
    results = run_parallel(
        lambda n: n, [0], then=lambda outcome: [Task(int, outcome.index + 1)], run_timeout=0.1
    )
    assert "run_timeout of 0.1 s" == results.stopped
