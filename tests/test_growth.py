"""``then``: tasks that make new tasks."""

import signal
import threading

import numpy as np
import pytest
import remote_tasks as far

from parallelkit import (
    Checkpoint,
    ConcurrencyLimit,
    InputError,
    RateLimit,
    RunInterrupted,
    Task,
    TaskFailures,
    iter_parallel,
    map_reduce,
    run_parallel,
)
from parallelkit._input._intake import Intake
from parallelkit._input._naming import Naming
from parallelkit._marks import UNSET
from parallelkit.testing import inline_runs

LINKS = {"/": ["/a", "/b"], "/a": ["/a/1"], "/b": ["/b/1", "/b/2"]}


def follow(outcome):
    """A task for every link of the page."""
    return [Task(far.visit, link, key=link) for link in LINKS.get(outcome.key, [])]


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
def test_a_crawl_follows_links(executor):
    """A crawl visits every reachable page once, on one worker without a deadlock, and each page knows its parent."""
    results = run_parallel(far.visit, ["/"], key=str, executor=executor, max_workers=1, then=follow)
    assert {page: page.upper() for page in ["/", "/a", "/b", "/a/1", "/b/1", "/b/2"]} == dict(results.items())
    parents = {key: outcome.parent for key, outcome in results.outcomes.items()}
    assert {"/": None, "/a": "/", "/b": "/", "/a/1": "/a", "/b/1": "/b", "/b/2": "/b"} == parents


def test_a_stream_grows_too():
    """A stream yields the outcomes of children, too."""
    seen = {outcome.key: outcome.parent for outcome in iter_parallel(far.visit, ["/"], key=str, then=follow)}
    assert {"/": None, "/a": "/", "/b": "/", "/a/1": "/a", "/b/1": "/b", "/b/2": "/b"} == seen


def test_search_then_deep_dive():
    """``then`` works with Tasks: two searches, and then a look at each thing found."""
    searches = {"x": lambda: [1, 2], "y": lambda: [3]}
    results = run_parallel(
        searches,
        then=lambda done: [Task(pow, n, 2, key=n) for n in done.value] if done.parent is None else (),
    )
    assert {1: 1, 2: 4, 3: 9} == {key: value for key, value in results.items() if key in (1, 2, 3)}


def test_failures_are_followed_too():
    """``then`` is called for failures, too, so that a fallback is simple."""

    def fallback(outcome):
        return (
            () if outcome.ok or outcome.parent is not None else [Task(str, "fallback", key=(outcome.key, 2))]
        )

    results = run_parallel(lambda n: 1 / n, [0, 1], then=fallback)
    assert "fallback" == results[0, 2]
    assert {0} == set(results.failures)


# Keys where nobody has given any: an item's is its position, whatever was admitted before it.


def one_more(outcome):
    """A child for every item, admitted before later items are read."""
    return [Task(lambda: "child")] if outcome.parent is None and not isinstance(outcome.value, str) else ()


def read_late(executor, source, **options):
    return run_parallel(abs, source, executor=executor, max_workers=1, buffersize=1, then=one_more, **options)


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_an_item_is_keyed_by_its_position_though_children_were_admitted_before_it(executor):
    """``results[i]`` is always the i-th item's; children are numbered after the end of the input."""
    results = read_late(executor, [-1, -2, -3])
    assert {0: 1, 1: 2, 2: 3, 3: "child", 4: "child", 5: "child"} == dict(results.items())
    assert [0, 1, 2, 3, 4, 5] == list(results), "the input comes first, in its order"
    assert results.outcomes[2].index > results.outcomes[3].index, "which is the order of admission"
    assert [3, 4, 5] == [key for key, one in results.outcomes.items() if one.parent is not None]


def test_the_other_orders_see_the_same_keys():
    """Keys are the same in key order and completion order."""
    by_key = read_late("inline", [-1, -2, -3], order="key")
    done = read_late("inline", [-1, -2, -3], order="completion")
    assert [0, 1, 2, 3, 4, 5] == list(by_key) == sorted(done)
    assert list(done) != sorted(done), "a child was done before the last item"
    assert dict(by_key.items()) == dict(done.items())


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_stream_keys_them_alike(executor):
    """A stream has the same keys, although in its input order, the order of admission, children come in between."""
    stream = iter_parallel(
        abs, [-1, -2, -3], executor=executor, max_workers=1, buffersize=1, then=one_more, order="input"
    )
    seen = {one.key: one.value for one in stream}
    assert {0: 1, 1: 2, 2: 3, 3: "child", 4: "child", 5: "child"} == seen


def test_tasks_without_keys_are_keyed_alike():
    """The same holds for Tasks of which only some have keys; children with keys take no number."""
    tasks = [lambda: 0, Task(lambda: 1, key="one"), lambda: 2]

    def then(outcome):
        return [Task(str, key=f"named {outcome.key}"), str] if outcome.value else ()

    results = run_parallel(tasks, then=then, max_workers=1, buffersize=1)
    assert [0, "one", 2, "named one", 3, "named 2", 4] == list(results)
    assert (0, 1, 2) == tuple(results.values()[:3])


@pytest.mark.parametrize("run", [run_parallel, iter_parallel])
def test_what_then_has_made_keeps_no_input_from_being_read(run):
    """Only tasks of the input count for ``buffersize``."""
    read, seen = [], []

    def items():
        for item in range(3):
            read.append(item)
            yield item

    def children(outcome):
        return [Task(lambda: seen.append(len(read)))] * 3 if outcome.key == 0 else ()

    assert 6 == len(list(run(abs, items(), executor="inline", buffersize=1, then=children)))
    assert [2, 2, 2] == seen, "an item was read though three children were not done"


def test_a_childs_key_may_be_a_number_that_no_item_has():
    """One beyond the end of the input or, in a stream, that of an item which has been yielded."""

    def child(outcome):
        return [Task(abs, -9, key=0 if outcome.key else 100)] if outcome.parent is None else None

    assert {0: 1, 100: 9} == run_parallel(abs, [1], then=child).to_dict()
    stream = iter_parallel(abs, [1, 2], executor="inline", buffersize=1, then=child)
    assert [(0, 1), (100, 9), (1, 2), (0, 9)] == [(outcome.key, outcome.unwrap()) for outcome in stream]


def test_what_a_stop_leaves_unread_has_its_positions_too():
    """After a stop, unread items of sized input are cancelled under their own positions."""

    def then(outcome):
        return [Task(lambda: 1 / 0)] if outcome.key == 0 else ()

    results = run_parallel(abs, [-1, -2, -3, -4], executor="inline", buffersize=1, then=then, max_failures=1)
    assert [0, 1, 2, 3, 4] == sorted(results)
    assert isinstance(results.outcomes[4].error, ZeroDivisionError), "the child"
    assert all(results.outcomes[key].parent is None for key in range(4))


def test_a_stop_that_left_then_uncalled_is_told():
    """Where a stop comes as the last task ends, a run with ``then`` says so: its outcome may have led to more tasks."""

    def late(run, *given, **options):
        with inline_runs() as clock:
            return run(clock.advance, [2], *given, buffersize=1, run_timeout=1, **options)

    def child(outcome):
        return [Task(abs, -1)]

    whole, cut = late(run_parallel), late(run_parallel, then=child)
    assert (1, None) == (len(whole), whole.stopped)
    assert (1, "run_timeout of 1 s") == (len(cut), cut.stopped)
    assert 1 == late(map_reduce, count_up, initial=0)
    with pytest.raises(TaskFailures, match="the run was stopped before the end of its input"):
        late(map_reduce, count_up, initial=0, then=child)


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("options", [{"buffersize": 1}, {"buffersize": 9}], ids=["unread", "read"])
def test_then_is_not_called_for_the_failure_that_stops_the_run(kind, options):
    """Whether or not all of the input has been read by then; and ``stopped`` tells, for there may have been more to do."""
    heard = []

    def then(outcome):
        heard.append(outcome.key)
        return () if outcome.ok else [Task(abs, -1)]

    results = run_parallel(
        lambda n: 1 / n, kind([-1, -2, 0]), executor="inline", max_failures=1, then=then, **options
    )
    assert ([0, 1], 3, "max_failures of 1 reached") == (heard, len(results), results.stopped)


def test_then_is_not_called_for_a_recorded_failure_that_stops_the_run(tmp_path):
    """What the checkpoint tells stops a run as soon as what its own tasks do."""
    heard, path = [], Checkpoint(tmp_path / "run.journal", rerun_failed=False)
    options = {"key": str, "executor": "inline", "checkpoint": path}
    run_parallel(int, ["x"], **options)
    results = run_parallel(int, ["1", "x"], max_failures=1, then=lambda one: heard.append(one.key), **options)
    assert ([], "max_failures of 1 reached") == (heard, results.stopped)
    results = run_parallel(int, ["x"], max_failures=1, then=lambda one: heard.append(one.key), **options)
    assert ([], "max_failures of 1 reached") == (heard, results.stopped)


def count_up(so_far, _):
    return so_far + 1


def test_input_without_an_end_is_keyed_as_it_is_admitted():
    """With unsized input, items and children are numbered together in order of admission."""
    results = read_late("inline", iter([-1, -2, -3]))
    assert all(one.key == one.index for one in results.outcomes.values())
    assert [0, 1, 2] != list(results)[:3], "a child was admitted before the last item"
    assert [1, 2, 3, "child", "child", "child"] == results.values()


@pytest.mark.parametrize("key", [2, 2.0, 0])
@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_childs_key_may_not_be_that_of_an_item_by_position(executor, key):
    """A child's key may not equal an item's position, even of an unread item: the error names it, and nothing is lost."""

    def then(outcome):
        return [Task(str, key=key)] if outcome.key == 0 else ()

    with pytest.raises(InputError, match=f"key must be unique, got {key}") as caught:
        run_parallel(abs, [-1, -2, -3], executor=executor, max_workers=1, buffersize=1, then=then)
    assert 1 == caught.value.results[0]


def in_one(tasks, **options):
    return run_parallel(tasks, **options)


def as_stream(tasks, **options):
    return list(iter_parallel(tasks, **options))


@pytest.mark.parametrize("read", [in_one, as_stream])
def test_a_number_that_a_child_has_ends_an_input_without_end(read, monkeypatch):
    """In unsized input, a Task without a key whose number a child has as its key ends the input."""
    begun, ended, fail = threading.Event(), threading.Event(), Intake.fail

    def note(self, *why):
        fail(self, *why)
        ended.set()

    def tasks():
        yield Task(abs, -1, key="a")
        yield Task(abs, -2, key="b")
        begun.wait(20)
        yield from [lambda: 3, lambda: 4]

    def child():
        begun.set()
        return ended.wait(20)

    def then(outcome):
        return [Task(child, key=3)] if outcome.key == "a" else ()

    monkeypatch.setattr(Intake, "fail", note)
    with pytest.raises(
        InputError, match=r"key must be unique, got 3 at positions \d of the run and 3 of the run"
    ):
        read(tasks(), max_workers=3, buffersize=1, then=then)


def test_tasks_read_before_one_whose_number_is_taken_are_run():
    """Of tasks that are read together and numbered, only those from the one whose number is taken are dropped."""
    tasks = iter([Task(abs, -5, key=2), lambda: "numbered", lambda: "not"])
    with pytest.raises(InputError, match="got 2 at positions 0 and 2 of the run") as caught:
        run_parallel(tasks, executor="inline", then=lambda outcome: None)
    assert {2: 5, 1: "numbered"} == caught.value.results.to_dict()


@pytest.mark.parametrize("key", [UNSET, 1])
def test_a_child_and_an_item_have_no_key_in_common_though_their_places_are_alike(key):
    """A child and an item may not have the same key, even if both have the same index: the InputError names both positions."""

    def then(outcome):
        return [Task(abs, -99, key=key)] if outcome.key == 0 else ()

    numbers = (number for number in range(6))  # of which one is read when the first is done
    with pytest.raises(InputError, match="got 1 at positions 1 of the run and 1") as caught:
        run_parallel(abs, numbers, key=abs, then=then, executor="inline")
    assert {0: 0, 1: 99} == caught.value.results.to_dict()


def test_a_key_given_twice_by_then_says_how_to_keep_it_from_that():
    """A crawl that meets a page again ends with an InputError that says what to do."""

    def then(outcome):
        return [Task(str, key="home")] if outcome.parent is None else ()

    with pytest.raises(InputError, match=r"got 'home' at .*; keep the keys that then has given in a set"):
        run_parallel(abs, [1, 2], executor="inline", then=then)


@pytest.mark.parametrize("tasks", [{"home": str}, [Task(str, key="home")]])
def test_a_child_may_not_have_the_key_of_a_task_that_was_known_before_the_run(tasks):
    """Neither a mapping's key nor that of a task in a list may come again."""
    with pytest.raises(InputError, match="got 'home' at positions 0 and 1 of the run"):
        run_parallel(tasks, executor="inline", then=lambda outcome: [Task(str, key="home")])


def test_a_task_that_is_numbered_late_and_one_with_a_key_are_told_apart():
    """A task that is numbered late is refused if an item has that number as its key, even if both have the same index."""
    naming = Naming(grows=True)
    naming.of_item(5, 5)
    with pytest.raises(ValueError, match="got 5 at positions 5 and 5 of the run"):
        naming.number([UNSET], 5)


def test_a_parents_key_may_be_none():
    """None may be a parent's key."""
    results = run_parallel(
        {None: str, "b": str}, then=lambda o: [str] if o.key is None else (), max_workers=1, buffersize=1
    )
    assert [None, "b", 2] == list(results)


@pytest.mark.parametrize(
    ("children", "text"),
    [
        (lambda outcome: 1 / 0, "then raised ZeroDivisionError"),
        (  # the error of a run in ``then``, whose results stay those of that run
            lambda outcome: run_parallel(abs, map(abs, "x")),
            "then raised InputError for 'a': the input raised TypeError after 0 items",
        ),
        (
            lambda outcome: Task(abs, 1),
            r"then must return an iterable of tasks, or None, got Task\(abs, 1\); give it",
        ),
        (
            lambda outcome: abs,
            "then must return an iterable of tasks, or None, got <built-in function abs>; give it",
        ),
        (lambda outcome: [3], r"then must return .* Task objects, got 3; give Task\(fn, item\)"),
        (
            lambda outcome: np.array([3, 4]),
            r"then must return .* Task objects, got .*3.*; give Task\(fn, item\)",
        ),
        (lambda outcome: [Task(abs, 1, key="a")], "key must be unique, got 'a' at positions 0 and 2"),
    ],
)
def test_what_is_wrong_with_then_ends_the_input_and_loses_nothing(children, text):
    """An error of ``then`` ends the input; everything read is run and delivered with the InputError."""
    with pytest.raises(InputError, match=text) as caught:
        run_parallel(abs, ["a", "b"], key=str, kwargs={}, then=children, executor="inline")
    assert 2 == len(caught.value.results)


def test_a_question_about_a_child_that_raises_ends_the_input():
    """If ``priority`` raises for a task that ``then`` returned, the run does not pass for complete without that task."""

    def urgency(item):
        return 1 / item

    with pytest.raises(
        InputError, match="priority raised ZeroDivisionError for the item at position 1"
    ) as caught:
        run_parallel(abs, [-3], priority=urgency, then=lambda outcome: [Task(abs, 0)], executor="inline")
    assert [3] == caught.value.results.values()


def test_children_may_have_an_order_where_the_input_has_none():
    """A child with a larger ``priority`` of its own starts first."""
    begun = []

    def children(outcome):
        return [Task(begun.append, n, priority=n) for n in range(3)] if outcome.parent is None else ()

    run_parallel(begun.append, [9], then=children, executor="inline")
    assert [9, 2, 1, 0] == begun


def test_groups_and_priorities_see_a_childs_first_argument():
    """For children, too, ``by`` and ``priority`` get the first argument."""
    asked = []

    def host(page):
        asked.append(page)
        return page[:2]

    run_parallel(far.visit, ["/"], key=str, then=follow, limits=RateLimit(100, per=1, by=host))
    assert {"/", "/a", "/b", "/a/1", "/b/1", "/b/2"} == set(asked)


def test_ctrl_c_cuts_off_what_is_asked_about_a_child():
    """Ctrl-C interrupts a ``by`` that hangs for a child, as it does ``then``."""
    went_on = []

    def group(item):
        if item == 2:
            signal.raise_signal(signal.SIGINT)
            went_on.append(item)

    with pytest.raises(RunInterrupted) as raised:
        run_parallel(abs, [1], then=lambda done: [Task(abs, 2)], limits=ConcurrencyLimit(1, by=group))
    assert [] == went_on
    assert [1] == raised.value.results.values()


def test_a_stopped_run_asks_for_no_more_tasks():
    """``run_timeout`` ends an endless crawl."""
    results = run_parallel(
        lambda n: n, [0], then=lambda outcome: [Task(int, outcome.index + 1)], run_timeout=0.1
    )
    assert "run_timeout of 0.1 s" == results.stopped


# How far ahead input is read: what ``then`` makes is not read, and leaves no room for more.


class Read:
    """An input that notes how many of its items were unsettled at each request."""

    def __init__(self, count):
        self.count, self.read, self.done, self.ahead = count, 0, 0, []

    def __iter__(self):
        for item in range(self.count):
            self.read += 1
            self.ahead.append(self.read - self.done)
            yield item

    def children(self, outcome):
        """Three children for every item."""
        if outcome.parent is not None or isinstance(outcome.value, str):
            return ()
        self.done += 1
        return [Task(str, n, key=(outcome.key, n)) for n in range(3)]


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_run_that_grows_keeps_its_buffersize(executor, size):
    """However many children there are, at most ``buffersize`` items are read of which ``then`` has not heard."""
    source = Read(60)
    run_parallel(abs, source, executor=executor, max_workers=2, buffersize=size, then=source.children)
    assert max(source.ahead) <= size


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("order", ["completion", "input"])
@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_stream_that_grows_keeps_its_buffersize(executor, order, size):
    """However many children there are, at most ``buffersize`` items of a stream are read and not yielded."""
    source, yielded = Read(60), 0
    options = {"executor": executor, "max_workers": 2, "buffersize": size, "order": order}
    for outcome in iter_parallel(abs, source, then=source.children, **options):
        yielded += outcome.parent is None
        assert source.read - yielded <= size
    assert 60 == yielded
