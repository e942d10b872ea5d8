"""The intake: how the caller's input becomes tasks, lazily, in portions, with its errors."""

from collections import deque
from contextlib import closing
from fractions import Fraction
from itertools import count

import numpy as np
import pytest
from fakes import FakeClock

from parallelkit import InputError, Retry, Task, iter_parallel, run_parallel
from parallelkit._input._intake import PORTION, Intake, Shape
from parallelkit._marks import UNSET
from parallelkit._tasks import Own, call_star


def square(x):
    return x * x


def read_all(intake, limit=1000):
    """The items of all portions, and their keys if there are any."""
    items, keys = [], []
    while (portion := intake.read(limit)) is not None:
        items += portion.items
        keys += portion.keys if portion.keys is not None else [None] * len(portion.items)
    assert intake.exhausted
    return items, keys


def invert(x):
    return 1 / x


class Mute(list):
    """Not usable as a key, and its repr raises, so that no message can name it."""

    def __repr__(self):
        raise OSError("no words for it")


class Unhashable:
    """An object whose hash raises, although its class is hashable."""

    def __hash__(self):
        raise OSError("offline")

    def __repr__(self):
        return "<Unhashable>"


class Clocked:
    """An input each item of which takes time."""

    def __init__(self, clock, seconds, stop=10):
        self.clock, self.seconds, self.stop, self.read = clock, seconds, stop, 0

    def __iter__(self):
        for item in range(self.stop):
            self.clock.advance(self.seconds)
            self.read += 1
            yield item


# Portions


def test_portions_that_are_joined_or_cut_keep_the_options_of_each_task():
    """Options stay with their task, also where several portions are admitted as one, or a part of one."""
    tasks = [Task(abs, item, timeout=item or None) for item in (0, 1, 2, 0, 4)]
    intake = Intake(iter(tasks), Shape(tasks=True))
    joined = intake.read(1)
    while portion := intake.read(9):
        joined.extend(portion)
    assert {1: 1, 2: 2, 4: 4} == {offset: own.timeout for offset, own in joined.own.items()}
    joined.cut(2)
    assert [1] == list(joined.own)


@pytest.mark.parametrize(
    "source",
    [[1, 2, 3], (1, 2, 3), range(1, 4), deque([1, 2, 3]), iter([1, 2, 3]), {1: 1, 2: 2, 3: 3}.values()],
)
def test_every_item_is_read_once_in_order(source):
    """Every item is read once, in order, whatever kind of input it is."""
    intake = Intake(source, Shape())
    assert ([1, 2, 3], [None] * 3) == read_all(intake)
    assert (3, None) == (intake.read_so_far, intake.error)
    assert intake.read(10) is None


@pytest.mark.parametrize("make", [list, iter])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_no_portion_is_larger_than_allowed(make, limit):
    """No portion is larger than allowed, and together they are the whole input."""
    intake, seen = Intake(make(list(range(20))), Shape()), []
    while (portion := intake.read(limit)) is not None:
        assert 1 <= len(portion.items) <= limit
        seen += portion.items
    assert list(range(20)) == seen


def test_nothing_is_read_ahead():
    """An iterator is never read beyond the last requested item."""
    numbers = count()
    intake = Intake(numbers, Shape())
    taken = sum(len(intake.read(5).items) for _ in range(4))
    assert taken == intake.read_so_far == next(numbers)


def test_a_slow_input_comes_one_by_one():
    """An item that takes longer than a portion may take is delivered without waiting for the next."""
    clock = FakeClock()
    source = Clocked(clock, 2 * PORTION)
    intake = Intake(source, Shape(), clock)
    assert [[0], [1], [2]] == [intake.read(100).items for _ in range(3)]
    assert 3 == source.read


def test_a_fast_input_comes_in_growing_portions():
    """Portions grow as 1, 2, 4, …, so that an input that becomes slow is noticed soon."""
    clock = FakeClock()
    intake = Intake(Clocked(clock, 0.0, stop=100), Shape(), clock)
    assert [1, 2, 4, 8, 16, 32] == [len(intake.read(1000).items) for _ in range(6)]


def test_a_slow_group_keeps_nobody_waiting():
    """A slow ``by`` ends the portion, even of a list, unless priorities decide, which need the whole input."""
    clock = FakeClock()
    shape = Shape(gated=True, bys=(lambda item: clock.advance(2 * PORTION),))

    assert [0] == Intake(list(range(9)), shape, clock).read(9).items
    assert 9 == len(Intake(list(range(9)), shape._replace(priority=abs, ranked=True), clock).read(9).items)


def test_reading_is_timed():
    """The report gets the total time spent reading the input, and nothing else."""
    clock = FakeClock()
    intake = Intake(Clocked(clock, 0.5, stop=4), Shape(), clock)
    while intake.read(1) is not None:
        clock.advance(7)
    assert 2.0 == intake.seconds


def test_the_size_is_known_where_the_input_knows_it():
    """The size of sized input is the bar's total, and decides whether unread items are tasks."""
    assert (3, None) == (Intake([1, 2, 3], Shape()).size, Intake(iter([1]), Shape()).size)


# Errors


def failing(after, error):
    yield from range(after)
    raise error


def test_an_input_that_raises_is_exhausted():
    """An input that raises ends: earlier items count, and the error is kept, not raised."""
    error = LookupError("gone")
    intake = Intake(failing(3, error), Shape())
    assert [0, 1, 2] == read_all(intake)[0]
    assert isinstance(intake.error, InputError)
    assert "the input raised LookupError after 3 items: gone" == str(intake.error)
    assert error is intake.error.__cause__


def test_an_input_that_cannot_even_begin_is_an_input_error():
    """An input whose ``iter`` raises, such as a cursor whose query fails, fails when reading begins."""

    class Query:
        def __iter__(self):
            raise ConnectionError("refused")

    intake = Intake(Query(), Shape())
    assert intake.read(10) is None
    assert isinstance(intake.error.__cause__, ConnectionError)


@pytest.mark.parametrize("make", [list, deque, iter])
@pytest.mark.parametrize("read", [Intake.read, lambda intake, limit: [*intake.flow(limit)]])
def test_an_input_that_is_ended_while_it_is_read_stays_ended(make, read):
    """An input that another thread ends during a read stays ended; it may be endless."""
    intake, looks = Intake(make(range(10)), Shape()), count()
    intake._clock = lambda: (next(looks) == 0 and intake.fail("then raised", OSError())) or 0.0
    assert read(intake, 1)
    assert intake.exhausted
    assert intake.read(1) is None


def test_what_ends_the_program_is_not_the_inputs_error():
    """Ctrl-C in the caller's generator propagates."""
    intake = Intake(failing(0, KeyboardInterrupt()), Shape())
    with pytest.raises(KeyboardInterrupt):
        intake.read(10)
    assert intake.error is None


# Keys


def test_sized_input_is_keyed_at_the_door():
    """All keys of sized input are known before the first task runs."""
    asked = []
    intake = Intake(["a", "bb"], Shape(key=lambda item: asked.append(item) or len(item)))
    assert (["a", "bb"], [1, 2]) == (asked, intake.keys)
    assert (["a", "bb"], [1, 2]) == read_all(intake)
    assert 2 == len(asked), "and nobody is asked twice"


def test_other_input_is_keyed_as_it_is_read():
    """Lazy input gets its keys one item at a time."""
    asked = []
    intake = Intake(iter(["a", "bb"]), Shape(key=lambda item: asked.append(item) or len(item)))
    assert (None, []) == (intake.keys, asked)
    assert (["a", "bb"], [1, 2]) == read_all(intake)


def test_a_mapping_brings_its_keys():
    """The keys of a mapping are the keys, and its values the items."""
    intake = Intake({"a": 1, "b": 2}, Shape())
    assert ["a", "b"] == intake.keys
    assert ([1, 2], ["a", "b"]) == read_all(intake)


def test_positions_need_no_keys():
    """Positions as keys are not stored."""
    assert Intake([1, 2], Shape()).keys is None


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (lambda item: item % 3, "key must be unique, got 0 at positions 0 and 3"),
        (lambda item: [item] if item == 3 else item, r"key must be hashable, got \[3\] at position 3"),
        (
            lambda item: item if item < 3 else 1 // 0,
            "key raised ZeroDivisionError for the item at position 3: .* by zero",
        ),
        (
            lambda item: Unhashable() if item == 3 else item,
            r"key must hash and compare, got <Unhashable> at position 3, which raised OSError: offline",
        ),
        (
            lambda item: Mute() if item == 3 else item,
            "an item is bad, and describing it raised OSError: no words for it",
        ),
    ],
)
def test_a_bad_key_of_lazy_input_ends_it(key, message):
    """A bad key in lazy input ends it; earlier items are run."""
    intake = Intake(iter(range(10)), Shape(key=key))
    assert [0, 1, 2] == read_all(intake)[0]
    with pytest.raises(InputError, match=message):
        raise intake.error


def test_a_key_of_sized_input_that_cannot_be_hashed_is_named():
    """With its position, whatever its ``__hash__`` raises; that came out of the call as it was."""
    key = [0, 1, 2, Unhashable(), 4].__getitem__
    with pytest.raises(
        ValueError, match="<Unhashable> at position 3, which raised OSError: offline"
    ) as caught:
        run_parallel(abs, range(5), key=key)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_forgotten_key_may_come_again():
    """A key may come again once its outcome was yielded."""
    intake = Intake(iter([1, 2, 1, 2]), Shape(key=str))
    keys = []
    while (portion := intake.read(1)) is not None:
        keys += portion.keys
        if keys[-1] == "1":
            intake.naming.forget("1")
    assert ["1", "2", "1"] == keys
    assert "key must be unique, got '2' at positions 1 and 3" == str(intake.error)


def test_forgetting_what_was_never_noted_is_no_error():
    """Forgetting a position, which was never stored, is no error, and forgets nothing else."""
    intake = Intake(iter([1, 1]), Shape(key=str))
    intake.read(1)
    intake.naming.forget(0)
    assert intake.read(1) is None
    assert "key must be unique, got '1' at positions 0 and 1" == str(intake.error)


# Tasks of their own functions


def test_tasks_become_calls():
    """A Task becomes its function, arguments and keywords, with its own key, if any."""
    tasks = [Task(square, 3, key="k"), square, Task(max, 1, 2, kwargs={"default": 0})]
    items, keys = read_all(Intake(tasks, Shape(tasks=True)))
    assert [(square, (3,), {}), (square, (), {}), (max, (1, 2), {"default": 0})] == items
    assert ["k", UNSET, UNSET] == keys


def test_options_of_their_own_stand_by_offset():
    """A portion has the tasks' own options by their offset in it."""
    tasks = [
        square,
        Task(square, timeout=3),
        square,
        Task(square, retries=0),
        Task(square, timeout=1, retries=Retry(2)),
    ]
    intake = Intake(tasks, Shape(tasks=True))
    assert {1: Own(3, None, False)} == intake.read(2).own
    assert {1: Own(None, None, True)} == intake.read(2).own
    assert {0: Own(1, Retry(2), True)} == intake.read(2).own


def test_a_wrong_task_in_lazy_input_ends_it():
    """An item of lazy input that is no task ends it; in sized input it would have been refused at once."""
    intake = Intake(iter([square, 3, square]), Shape(tasks=True))
    assert [(square, (), {})] == read_all(intake)[0]
    assert str(intake.error).startswith(
        "tasks must be callables or Task objects, got 3 at position 1; in place of a call f(x)"
    )
    with pytest.raises(TypeError, match="got 3 at position 1"):
        Intake([square, 3], Shape(tasks=True))
    with pytest.raises(TypeError, match="got 3 at position 0"):
        Intake({"a": 3}, Shape(tasks=True))


def test_a_function_may_become_a_call_per_item():
    """In runs with ``then``, each item becomes a call, so that tasks of other functions can follow."""
    assert [(square, (3,), {})] == read_all(Intake([3], Shape(fn=square)))[0]
    assert [(call_star, (pow, (2, 5)), {})] == read_all(Intake([(2, 5)], Shape(fn=pow, star=True)))[0]


# Priorities and groups


def by_parity(item):
    return item % 2 or None


def test_traits_are_priority_and_groups():
    """The traits of an item are its priority and its groups, in the order of the limits."""
    shape = Shape(gated=True, priority=lambda item: -item, bys=(None, by_parity), ranked=True)
    assert [(0, (None, None)), (-1, (None, 1)), (-2, (None, None))] == Intake(range(3), shape).read(10).traits


def test_a_tasks_own_priority_goes_before_the_runs():
    """A Task's own priority takes precedence over ``priority``."""
    shape = Shape(tasks=True, gated=True, priority=lambda task: 5)
    assert [7, 5] == [
        trait[0] for trait in Intake([Task(square, 1, priority=7), square], shape).read(10).traits
    ]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, Fraction])
def test_any_kind_of_number_is_a_priority(kind):
    """Any kind of number is a priority, such as a NumPy one, even of an unsigned type, whose negation would overflow."""
    ranked = Intake(range(3), Shape(gated=True, priority=kind))
    own = Intake([Task(square, 1, priority=kind(item)) for item in range(3)], Shape(tasks=True, gated=True))
    for intake in (ranked, own):
        priorities = [trait[0] for trait in intake.read(10).traits]
        assert [0, -1, -2] == [-priority for priority in priorities]
        assert {int, float} >= set(map(type, priorities))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": lambda item: "high"}, "priority must be a number, got 'high' at position 0"),
        ({"priority": lambda item: float("nan")}, "priority must be a number, got nan at position 0"),
        ({"priority": lambda item: 1 // 0}, "priority raised .* at position 0: .* by zero"),
        ({"bys": (lambda item: [],)}, r"by must return a hashable group, got \[\] at position 0"),
        (
            {"bys": (lambda item: Unhashable(),)},
            "by must return a hashable group, got <Unhashable> at position 0, which raised OSError: offline",
        ),
        (
            {"bys": (lambda item: 1 // 0,)},
            "by raised ZeroDivisionError for the item at position 0: .* by zero",
        ),
    ],
)
def test_a_bad_trait_ends_the_input(options, message):
    """A bad priority or group ends the input, and the error says what was wrong, for which item."""
    intake = Intake(range(3), Shape(gated=True, **options))
    assert intake.read(10) is None
    with pytest.raises(InputError, match=message):
        raise intake.error


@pytest.mark.parametrize(
    "shape",
    [
        Shape(key=invert),
        Shape(key=invert, gated=True),
        Shape(gated=True, priority=invert),
        Shape(gated=True, bys=(None, invert)),
        Shape(key=invert, fn=square, grows=True),
    ],
)
def test_nothing_is_read_behind_a_bad_item(shape):
    """Nothing is read after a bad item: it would be lost for whoever reads on."""
    source = iter(range(-100, 100))
    intake = Intake(source, shape)
    assert 100 == len(read_all(intake)[0])
    assert isinstance(intake.error.__cause__, ZeroDivisionError)
    assert 1 == next(source)


@pytest.mark.parametrize("options", [{"priority": str.upper}, {"bys": (str.upper,)}])
def test_what_is_written_for_items_is_told_that_it_was_given_a_task(options):
    """If ``key``, ``by`` or ``priority`` fails in a run of Tasks, a note says that it gets the whole Task, not an argument."""
    intake = Intake([Task(square, "a")], Shape(tasks=True, gated=True, **options))
    assert intake.read(10) is None
    with pytest.raises(
        InputError, match=r"TypeError for the item at position 0, a Task, whose arguments are in its .args: "
    ):
        raise intake.error


def test_an_error_of_a_list_of_another_kind_ends_the_input():
    """An error of a list subclass ends the input; what was read before stays read."""

    class Listing(list):
        def __iter__(self):
            yield 1
            raise OSError("the disk is gone")

    intake = Intake(Listing([1, 2, 3]), Shape())
    assert ([1], [None]) == read_all(intake)
    assert "the input raised OSError after 1 item: the disk is gone" == str(intake.error)


# Children


def test_children_are_tasks_of_the_same_run():
    """Children have a parent and unique keys; limits and priority see a child by its first argument."""
    shape = Shape(gated=True, fn=square, key=str, priority=lambda item: item, bys=(by_parity,), grows=True)
    intake = Intake([1, 2], shape)
    assert ["1", "2"] == read_all(intake)[1]
    portion = intake.adopt([Task(square, 3), Task(square, 4, key="four", priority=9)], "1", 2)
    assert ([(square, (3,), {}), (square, (4,), {})], [2, "four"], "1") == (
        portion.items,
        portion.keys,
        portion.parent,
    )
    assert [(3, (1,)), (9, (None,))] == portion.traits
    with pytest.raises(ValueError, match="key must be unique, got '1'"):
        intake.adopt([Task(square, 5, key="1")], "2", 4)


# Closing


def test_closing_closes_a_generator():
    """Closing the input runs a generator's ``finally`` at once, and nothing is read afterwards."""
    closed = []

    def items():
        try:
            yield from count()
        finally:
            closed.append(True)

    intake = Intake(items(), Shape())
    intake.read(3)
    intake.close()
    assert ([True], None) == (closed, intake.read(3))


class File:
    """An object that iterates over itself, and has a ``close`` as files have."""

    def __init__(self):
        self.closed = False
        self._lines = iter("ab")

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._lines)

    def close(self):
        self.closed = True


def test_closing_leaves_the_callers_files_open():
    """Closing the input leaves a caller's file open, because the caller may want to read on."""
    file = File()
    intake = Intake(file, Shape())
    intake.read(1)
    intake.close()
    assert (False, "b") == (file.closed, next(file))


def test_what_closing_raises_is_the_inputs_error():
    """What closing raises is kept as the input's error, and nothing else is lost."""

    def items():
        try:
            yield from count()
        finally:
            raise LookupError("refused")

    intake = Intake(items(), Shape())
    intake.read(1)
    intake.close()
    assert "closing the input raised LookupError: refused" == str(intake.error)
    assert isinstance(intake.error.__cause__, LookupError)


def test_closing_what_was_never_begun_is_nothing():
    """Closing an input that was never read does nothing."""
    intake = Intake(count(), Shape())
    intake.close()
    assert intake.exhausted


# Inputs whose length is not what they give


class Lying:
    """An input whose length is not the number of its items."""

    def __init__(self, says, gives):
        self.says, self.gives = says, gives

    def __len__(self):
        return self.says

    def __iter__(self):
        return iter(range(self.gives))


class Indexed:
    """A sequence with ``__getitem__`` but without ``__iter__``, such as a PyTorch dataset."""

    def __getitem__(self, index):
        return [-1, -2][index]


def test_a_sequence_without_iter_is_an_input():
    """A sequence without ``__iter__`` is accepted, as by ``for`` and ``map``."""
    assert [1, 2] == run_parallel(abs, Indexed()).values()
    assert [1, 2] == [outcome.value for outcome in iter_parallel(abs, Indexed(), order="input")]


class Once(Lying):
    """Tasks that can be read only once and yet have a length, as in ``tqdm(generator, total=3)``."""

    def __init__(self):
        self.says, self.tasks = 3, (Task(abs, item, key=str(item)) for item in (-1, -2, -3))

    def __iter__(self):
        return self.tasks


def test_tasks_that_have_a_length_and_can_be_read_only_once_are_all_run(tmp_path):
    """Tasks that can be read only once are all run though they have a length, also with a checkpoint."""
    assert [1, 2, 3] == run_parallel(Once()).values()
    assert [1, 2, 3] == run_parallel(Once(), checkpoint=tmp_path / "journal").values()
    assert [1, 2, 3] == [outcome.value for outcome in iter_parallel(Once(), order="input")]


class Lengthless(Lying):
    """Has ``__len__``, which raises TypeError, as loaders of data streams do."""

    def __len__(self):
        raise TypeError("object of type 'Stream' has no len()")


@pytest.mark.parametrize("key", [None, str])
def test_an_input_whose_len_raises_has_no_length(key):
    """An input whose ``len`` raises TypeError, or a range too long for ``len``, is treated as unsized, as ``list`` does."""
    source = Lengthless(None, 3)
    assert [0, 1, 2] == run_parallel(abs, source, key=key).values()
    assert [0, 1, 2] == [outcome.value for outcome in iter_parallel(abs, source, key=key, order="input")]
    with closing(iter_parallel(abs, range(10**20), key=key)) as stream:
        assert next(stream).ok


def test_an_input_whose_len_raises_is_read_lazily():
    """An input whose ``len`` raises is read lazily, with keys or Tasks, too: it may be endless."""
    for shape, item in ((Shape(key=str), 1), (Shape(tasks=True), Task(abs, 1))):
        source = Endless(item)
        assert 1 == len(Intake(source, shape, FakeClock()).read(9).items) == source.read


class Endless(Lengthless):
    def __init__(self, item):
        self.item, self.read = item, 0

    def __iter__(self):
        while self.read < 1000:  # not for ever, if it is read whole
            self.read += 1
            yield self.item


@pytest.mark.parametrize(("says", "gives"), [(100, 3), (3, 100)])
def test_the_size_is_what_was_read_in_the_end(says, gives):
    """At the end, the size is the number of items that were read."""
    intake = Intake(Lying(says, gives), Shape())
    assert gives == len(read_all(intake)[0]) == intake.size
    assert 0 == intake.count_unread()


@pytest.mark.parametrize(
    ("source", "left"), [(Lying(100, 3), 2), (Lying(3, 100), 2), (list(range(9)), 8), ({"a": 1, "b": 2}, 1)]
)
def test_what_was_not_read_is_counted(source, left):
    """After a stop, unread items are counted, so that none is made up, also if none was read."""
    assert left + 1 == Intake(source, Shape(), FakeClock()).count_unread()
    intake = Intake(source, Shape(), FakeClock())
    intake.read(1)
    assert left == intake.count_unread()


def test_an_input_that_is_slow_or_raises_is_not_counted_to_its_end():
    """If counting unread items is slow or raises, the input's length is believed, or what came before the error."""
    clock = FakeClock()

    class Slow(Clocked):
        def __len__(self):
            return 10

    source = Slow(clock, 1.0)
    intake = Intake(source, Shape(), clock)
    intake.read(1)
    assert (9, 2) == (intake.count_unread(), source.read)
    assert (9, 2) == (intake.count_unread(look=False), source.read)

    class Broken(Lying):
        def __iter__(self):
            return failing(3, LookupError("gone"))

    intake = Intake(Broken(10, 3), Shape(), clock)
    intake.read(1)
    assert (2, None) == (intake.count_unread(), intake.error)


def test_positions_are_not_noted_where_nothing_else_could_have_one_as_its_key():
    """A run under a limit keeps no table of its items' positions: 66 MiB for a million."""
    intake = Intake([1, 2], Shape(gated=True, bys=(None,)))
    assert ([1, 2], [UNSET, UNSET]) == read_all(intake)
    assert {} == intake.naming._seen


def test_the_keys_of_a_mapping_are_noted_only_where_then_could_repeat_one():
    """A run without ``then`` keeps no second dict of a mapping's keys: 66 MiB for a million."""
    tables = [Intake({"a": 1}, Shape(grows=grows)).naming._seen for grows in (False, True)]
    assert [{}, {"a": 0}] == tables
