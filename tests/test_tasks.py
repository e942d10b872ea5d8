"""``Task``: what it accepts, what it refuses, and what a run makes of it."""

import pytest

from parallelkit import Retry, Task, run_parallel
from parallelkit._marks import UNSET
from parallelkit._tasks import Own, as_call, call_star, check_tasks, check_timeout, own_options


def add(a, b=0, *, timeout=0):
    return a + b + timeout


def test_a_task_is_a_call():
    """A Task has a function, its arguments and its keywords."""
    fn, args, kwargs = as_call(Task(add, 1, 2, kwargs={"timeout": 3}))
    assert 6 == fn(*args, **kwargs)


def test_a_bare_callable_is_a_task_without_arguments():
    """A function, method or class may be given instead of a Task."""
    assert (dict, (), {}) == as_call(dict)


def test_the_functions_own_keywords_do_not_clash_with_the_options():
    """A function's own keyword ``timeout`` is given in ``kwargs``."""
    task = Task(add, 1, kwargs={"timeout": 3}, timeout=5)
    assert ({"timeout": 3}, 5) == (task.kwargs, task.timeout)


def test_kwargs_are_copied():
    """``kwargs`` are copied, so that later changes do not affect the task."""
    kwargs = {"b": 1}
    task = Task(add, 1, kwargs=kwargs)
    kwargs["b"] = 100
    assert {"b": 1} == task.kwargs


def test_options_that_are_not_given_are_the_runs():
    """Key, priority, timeout and retries that are not given are left to the run."""
    task = Task(add, 1)
    assert (UNSET, None, None, None) == (task.key, task.priority, task.timeout, task.retries)
    assert own_options(task) is None
    assert own_options(add) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"timeout": 2}, Own(2, None, False)),
        ({"retries": Retry(3)}, Own(None, Retry(3), True)),
        ({"retries": 0}, Own(None, None, True)),
        ({"timeout": 2, "retries": Retry(1, on=OSError)}, Own(2, Retry(1, on=OSError), True)),
    ],
)
def test_options_of_its_own_say_what_they_override(options, expected):
    """``retries=0`` differs from retries that are not given."""
    assert expected == own_options(Task(add, 1, **options))


@pytest.mark.parametrize("key", [None, 0, "a", ("a", 1)])
def test_any_key_is_a_key(key):
    """None and zero are keys, different from no key."""
    assert key == Task(add, key=key).key


@pytest.mark.parametrize("priority", [0, -1, 2.5, float("inf")])
def test_any_number_is_a_priority(priority):
    """Any number is a priority, even a negative or infinite one."""
    assert priority == Task(add, priority=priority).priority


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((3,), {}, TypeError, "Task: fn must be callable, got 3"),
        ((add,), {"b": 1}, TypeError, r"unknown keyword: b; pass the function's own keywords as kwargs=\{"),
        (
            (add,),
            {"timeOut": 1, "b": 1},
            TypeError,
            r"unknown keyword: b, timeOut; did you mean 'timeout'\? pass",
        ),
        ((add,), {"timout": 1}, TypeError, r"unknown keyword: timout; did you mean 'timeout'\?"),
        ((add,), {"timeout": 0}, ValueError, "must be greater than 0, got 0; math.inf means no limit"),
        ((add,), {"kwargs": ["b"]}, TypeError, r"Task: kwargs must be a mapping, got \['b'\]"),
        ((add,), {"kwargs": {1: 2}}, TypeError, "Task: kwargs must have names as keys, got 1"),
        ((add,), {"timeout": -1}, ValueError, "must be greater than 0, got -1; math.inf means no limit"),
        ((add,), {"timeout": float("nan")}, ValueError, "timeout must be a number of seconds, got nan"),
        ((add,), {"timeout": "5"}, TypeError, "timeout must be a number of seconds, got '5'"),
        ((add,), {"retries": -1}, ValueError, "retries must be at least 0, got -1"),
        ((add,), {"retries": "3"}, TypeError, "retries must be an int, a Retry .* got '3'"),
        ((add,), {"priority": "high"}, TypeError, "priority must be a number, got 'high'"),
        ((add,), {"priority": float("nan")}, ValueError, "priority must be .* got nan"),
    ],
)
def test_a_bad_task_is_refused_where_it_is_made(arguments, options, kind, message):
    """A bad argument is refused when the Task is made, with the argument, the rule and the value."""
    with pytest.raises(kind, match=message):
        Task(*arguments, **options)


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        (Task(add), "Task(add)"),
        (Task(add, 1, "b"), "Task(add, 1, 'b')"),
        (Task(add, 1, kwargs={"b": 2}, key="k"), "Task(add, 1, kwargs={'b': 2}, key='k')"),
        (Task(add, key=None), "Task(add, key=None)"),
    ],
)
def test_a_task_shows_its_call(task, shown):
    """The repr of a Task shows how it was made."""
    assert shown == repr(task)


def test_what_has_no_name_shows_itself():
    """A callable without ``__name__`` is shown by its repr."""

    class Adder:
        def __call__(self):
            return 1

        def __repr__(self):
            return "<adder>"

    assert "Task(<adder>)" == repr(Task(Adder()))


@pytest.mark.parametrize("wrong", [3, "name", None, [add]])
def test_what_cannot_be_called_is_no_task(wrong):
    """Something that is not callable is refused; the message shows it, and its position."""
    with pytest.raises(TypeError, match=r"tasks must be callables or Task objects, got .* at position 1"):
        check_tasks([add, wrong])


def test_what_can_be_called_is_a_task():
    """Callables are accepted."""
    assert check_tasks([add, Task(add, 1), dict]) is None


def test_star_unpacks_in_the_worker():
    """With ``star``, an item that cannot be unpacked is its own task's error."""
    assert 6 == call_star(add, (1, 2), timeout=3)
    with pytest.raises(TypeError):
        call_star(add, 1)


def add_both(first, second):
    return first + second


async def add_later(first, second):
    return first + second


class Pair:
    """An object that can be unpacked by ``__getitem__`` only."""

    def __getitem__(self, place):
        return (1, "b")[place]


@pytest.mark.parametrize("then", [None, lambda outcome: ()])
@pytest.mark.parametrize(
    ("fn", "executor"),
    [(add_both, "threads"), (add_both, "processes"), (add_both, "inline"), (add_later, "threads")],
)
def test_an_item_that_star_cannot_unpack_is_named(fn, executor, then, running):
    """The error of an item that ``star`` cannot unpack says what to do; the function's own errors stay as they are."""
    items = [1, (1, 2), (1, "b"), (1,), Pair()]
    executor = running if executor == "processes" else executor
    results = run_parallel(fn, items, star=True, executor=executor, then=then)
    said = [str(failure.error) for failure in results.failures.values()]
    assert "star=True unpacks each item into the arguments of a call, got the item 1; pass tuples" in said[0]
    assert {1: 3} == dict(results.successes)
    assert "unsupported operand" in said[1]
    assert said[1] == said[3], "it can be unpacked, and so it is the function's own error"
    assert "missing 1 required positional argument" in said[2]


@pytest.mark.parametrize("then", [None, lambda outcome: ()])
@pytest.mark.parametrize(
    ("fn", "executor"), [("{} {}".format, "threads"), ("{} {}".format, "processes"), (add_later, "threads")]
)
def test_a_dict_is_not_unpacked_into_its_keys(fn, executor, then):
    """``star`` does not unpack a dict into its keys, which a function of texts would not notice."""
    results = run_parallel(fn, [{"a": 1, "b": 2}], star=True, executor=executor, then=then)
    assert "for keyword arguments leave star out and pass lambda item: fn(**item)" in str(
        results.failures[0].error
    )
    assert [3] == run_parallel(lambda item: pow(**item), [{"base": 3, "exp": 1}]).values()


@pytest.mark.parametrize("timeout", [None, 0.5, 10, float("inf")])
def test_a_timeout_is_seconds_or_none(timeout):
    """A timeout is a number of seconds, or None for no limit."""
    assert timeout == check_timeout("timeout", timeout)
