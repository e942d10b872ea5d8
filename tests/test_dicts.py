"""Small dicts of plain data are pickled so that many can be read at a time, with keys that are sent only once."""

import gc
import os
import weakref
from array import array
from collections import Counter
from types import SimpleNamespace

import pytest
import remote_tasks as far
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelkit import run_parallel
from parallelkit._executors._process import _decode
from parallelkit._executors._process._arrivals import Arrivals
from parallelkit._executors._process._decode import Decoding
from parallelkit._executors._process._lane import Batch, Lane, RawColumns, Span
from parallelkit._worker._channel import (
    DICT,
    HEAP,
    KEY,
    LENGTH_MASK,
    PLACE,
    SIZE,
    VALUE,
    WORD,
    GarbageError,
    Ring,
    new_file,
)
from parallelkit._worker._dicts import KEYS, LONGEST, MOST, Dicts, as_known, read_all, read_one
from parallelkit._worker._slots import Slots

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=9,
)
NAMES = [f"name {n}" for n in range(KEYS + 8)]
ROWS = st.dictionaries(st.sampled_from(NAMES), PLAIN, min_size=1)


class Far:
    """Both ends: a worker's, and what its parent was sent."""

    def __init__(self):
        self.arrivals = Arrivals(None, memoryview(b""))
        self.told = []
        self.dicts = Dicts(self.tell)

    @property
    def keys(self):
        return self.arrivals.keys

    def tell(self, number, key):
        self.arrivals.accept(KEY, WORD.pack(number) + key, 0, 1)
        self.told.append(key)

    def learn(self, *dicts):
        for value in dicts:
            self.dicts.look(value)

    def send(self, value):
        """Send a dict, as it lies in the heap."""
        blob = self.dicts.dump(value)
        assert blob is None or (blob[0] == 0x80 and blob[-2] in b"su" and blob.endswith(b"."))
        return None if blob is None else blob[:-1]


@pytest.fixture
def end():
    return Far()


def same(one, other):
    """Whether two values are equal, with equal types at every level."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        one, other = [*one.items()], [*other.items()]
    return not isinstance(one, list | tuple) or all(map(same, one, other))


@settings(max_examples=50)
@given(rows=st.lists(ROWS, max_size=12), looks=st.sets(st.integers(0, 12)))
@pytest.mark.all
def test_what_arrives_is_what_was_sent(rows, looks):
    """Dicts arrive as they were sent, whatever they hold, whenever keys become known, read singly or together."""
    end = Far()
    sent, pickles = [], []
    for number, row in enumerate(rows):
        if number in looks:
            end.learn(row)
        pickle = end.send(row)
        if pickle is not None:
            sent.append(row)
            pickles.append(pickle)
    assert len(sent) == len(rows) or any(len(repr(row)) > MOST // 8 for row in rows)
    assert all(same(read_one(end.keys, pickle), row) for pickle, row in zip(pickles, sent, strict=True))
    assert same(read_all(end.keys, b"".join(pickles)), sent)


def test_keys_travel_once(end):
    """A key that two dicts in a row share as an object is sent as a reference, and arrives as one object."""
    rows = [{"first": n, "second": [n]} for n in range(4)]
    whole = end.send(rows[0])
    end.learn(rows[0])
    assert end.told == []
    end.learn(rows[1])
    assert end.told == [b"first", b"second"]
    pickles = [end.send(row) for row in rows]
    assert b"first" not in b"".join(pickles)
    assert len(pickles[0]) < len(whole) - 20
    arrived = read_all(end.keys, b"".join(pickles))
    assert arrived == rows
    assert len({id(key) for row in arrived for key in row}) == 2


def test_changed_object_arrives_as_it_was_each_time(end):
    """An object that a task changes and returns repeatedly arrives in each of its states: only keys are remembered."""
    kept = {"list": []}
    end.learn(kept, kept)
    pickles = []
    for n in range(3):
        kept["list"].append(n)
        pickles.append(end.send(kept))
    arrived = read_all(end.keys, b"".join(pickles))
    assert arrived == [{"list": [0]}, {"list": [0, 1]}, {"list": [0, 1, 2]}]
    assert len({id(row["list"]) for row in arrived}) == 3


def test_identity_and_cycles_within_one_dict_stay(end):
    """Shared objects and cycles within one dict are kept, as are keys that are also values."""
    inner = []
    row = {"one": inner, "other": inner, "key": "one"}
    row["self"] = row
    end.learn(row, row)
    for arrived in (read_one(end.keys, end.send(row)), *read_all(end.keys, end.send(row) * 2)):
        assert arrived["one"] is arrived["other"]
        assert arrived["self"] is arrived
        assert arrived["key"] == "one"


def test_fullest_memo_touches_no_key():
    """The memo of the largest small dict does not overlap the maximum number of remembered keys."""
    end = Far()
    names = dict.fromkeys(NAMES[:KEYS], 0)
    end.learn(names, names)
    row = {1: [[] for _ in range(MOST // 3)]}
    while end.send(row) is None:
        row[1].pop()
    assert len(end.told) == KEYS
    assert len(end.send(row)) > MOST - 8
    both = [row, names, row, names]
    assert read_all(end.keys, b"".join(map(end.send, both))) == both


@pytest.mark.parametrize(
    "key",
    ["", "größe", "\ud800", "x" * LONGEST, "q\x000.", "\0"],
    ids=["empty", "accents", "surrogate", "long", "code", "nul"],
)
def test_any_text_can_be_a_key(end, key):
    """Any text can be a key."""
    row = {key: 1}
    end.learn(row, row)
    assert len(end.told) == 1
    assert read_all(end.keys, end.send(row) * 2) == [row, row]


def test_some_keys_are_not_told(end):
    """Keys that are not strings, too long, too many, or a different object each time are not remembered."""

    class Text(str):
        pass

    odd = {Text("subclass"): 1, 5: 1, "x" * (LONGEST + 1): 1, None: 1}
    end.learn(odd, odd, *({f"made {n}": n for n in range(KEYS)} for _ in range(2)))
    assert end.told == []
    many = dict.fromkeys(NAMES)
    end.learn(many, many)
    assert end.told == []  # it is not small
    for start in range(0, len(NAMES), 5):
        few = dict.fromkeys(NAMES[start : start + 5])
        end.learn(few, few)
    assert end.told == [name.encode() for name in NAMES[:KEYS]]
    assert all(read_one(end.keys, end.send({name: 1})) == {name: 1} for name in NAMES)


class Plainless:
    pass


class Number(int):
    pass


@pytest.mark.parametrize(
    "value",
    [
        {"a": Plainless()},
        {"a": Number(3)},
        {Plainless: 1},
        {"a": [{"b": (len,)}]},
        {"a": {1, 2}},
        {"a": "x" * MOST},
        {"a": b"x" * 200_000},
    ],
    ids=["object", "subclass", "class", "function", "set", "long", "very long"],
)
def test_others_go_the_general_way(end, value):
    """Dicts that are not plain or not small are pickled in the general way, and do not affect the next one."""
    end.learn(value, value)
    row = {"a": [1]}
    for _ in range(2):
        assert end.send(value) is None
        assert read_all(end.keys, end.send(row)) == [row]


def test_what_is_not_plain_is_not_kept_alive(end):
    """Nothing of a dict that is not plain is kept alive until the next one."""
    thing = Plainless()
    known = weakref.ref(thing)
    assert end.send({"a": [1, [thing]]}) is None
    del thing
    gc.collect()
    assert known() is None


# In a run


def test_thousands_in_one_run(running):
    """More dicts than the heap holds at a time arrive; those that are read together share their keys."""
    results = run_parallel(far.row_of, range(40_000), executor=running).values()
    assert all(row == far.row_of(n) for n, row in enumerate(results))
    assert len({id(key) for row in results for key in row}) < 4_000


def test_everything_mixed(running):
    """Dicts arrive beside empty and long ones, objects, other shapes, other values and errors."""
    outcomes = run_parallel(far.one_of_all, range(3_000), executor=running).outcomes
    errors = {n: repr(outcome.error) for n, outcome in outcomes.items() if not outcome.ok}
    assert errors == {n: repr(LookupError(f"no {n}")) for n in range(9, 3_000, 10)}
    assert all(outcome.value == far.one_of_all(n) for n, outcome in outcomes.items() if outcome.ok)


def test_new_function_new_keys(running):
    """A worker that knows the keys of one function learns those of the next."""
    for fn in (far.row_of, far.other_row_of, far.row_of):
        distinct = []
        for _ in range(3):  # on a busy machine a worker may be read a few dicts at a time
            results = run_parallel(fn, range(3_000), executor=running).values()
            assert results == list(map(fn, range(3_000)))
            distinct.append(len({id(key) for row in results[2_000:] for key in row}))
        assert min(distinct) < 1_000


class Worker:
    """A worker's end of a ring that is never read."""

    def __init__(self, ring):
        self.ring = ring
        self.slots = Slots(ring, SimpleNamespace(send=lambda message, fd=None: None), 4)

    def put_batch(self, *values):
        """Put a batch of values; return the kinds of their slots."""
        self.slots.dicts.looked = False
        for slot, value in enumerate(values):
            self.slots.puts.get(type(value), self.slots.put_object)(slot, value)
        return [*self.ring.kinds[: len(values)]]


@pytest.fixture
def worker():
    fd = new_file("test-ring")
    os.ftruncate(fd, SIZE)
    ring = Ring(fd)
    os.close(fd)
    yield Worker(ring)
    ring.close()


def test_first_of_a_batch_decides(worker):
    """If the first dict of a batch is small, those after it are packed together, until one is not; an empty one does not count."""
    small, long, odd = {"a": 1}, {"a": "x" * 600}, {"a": 1j}
    assert worker.put_batch(small, small, {}, small) == [VALUE, DICT, VALUE, DICT]
    assert worker.put_batch(small, odd, small) == [DICT, VALUE, VALUE]
    assert worker.put_batch(small, long, small) == [VALUE, VALUE, VALUE]
    assert worker.put_batch(long, small) == [VALUE, VALUE]
    assert worker.put_batch(small, small) == [VALUE, DICT]
    assert worker.put_batch(long, small) == [VALUE, VALUE]


def test_pickles_lie_one_behind_the_other(worker):
    """Each pickle overwrites the end of the previous one, so that all can be read in one go."""
    worker.put_batch({"n": 0})
    rows = [{"n": n} for n in range(20)]
    assert worker.put_batch(*rows) == [DICT] * 20
    words = worker.ring.words[:20]
    ends = [(word >> PLACE) + (word & LENGTH_MASK) for word in words]
    assert [word >> PLACE for word in words[1:]] == ends[:-1]
    assert read_all(as_known(0, b"n"), bytes(worker.ring.heap[words[0] >> PLACE : ends[-1]])) == rows


# What a task may have written over


def columns_of(pickles, keys, start=0):
    """The columns that come out of the ring, joined."""
    at, words = start, array("q")
    for pickle in pickles:
        words.append(at << PLACE | len(pickle))
        at += len(pickle)
    instants = array("d", range(len(pickles)))
    kinds = bytes([DICT]) * len(pickles)
    return RawColumns(instants, instants, kinds, words.tobytes(), b"".join(pickles), start, [], keys)


@pytest.fixture
def calls(monkeypatch):
    """How often dicts were read together, and singly."""
    calls = Counter()
    for name in ("read_all", "read_one"):
        original = getattr(_decode, name)
        monkeypatch.setattr(_decode, name, lambda *args, f=original, n=name: (calls.update([n]), f(*args))[1])
    return calls


def open_all(columns):
    lane = Lane(1, b"", False)
    batch = Batch(lane, [(index, 1, index, None) for index in range(len(columns.kinds))], None)
    values, errors = {}, {}
    for entry in Decoding(Span(batch, columns, "process 1"), str).finish():
        if hasattr(entry, "indices"):
            values.update(zip(entry.indices, entry.values, strict=True))
        else:
            errors[entry.index] = entry.error
    return values, errors


@pytest.mark.parametrize(
    "rubbish", [b"\x80\x03\xffs", b"\x80\x03}q\x00(u\x80\x03}q\x00(u", b"\x80\x03h\xf0s", b"\x80\x030s"]
)
def test_one_that_is_overwritten_costs_no_other(end, rubbish):
    """If dicts read together make no sense, they are read singly, so that a damaged one costs no other."""
    rows = [{"n": n} for n in range(6)]
    end.learn(*rows)
    pickles = [end.send(row) for row in rows]
    assert open_all(columns_of(pickles, end.keys)) == (dict(enumerate(rows)), {})
    pickles[3] = rubbish
    values, errors = open_all(columns_of(pickles, end.keys, 70))
    good = {n: row for n, row in enumerate(rows) if n != 3}
    assert good.items() <= values.items()
    assert {*values, *errors} == set(range(6))
    assert all("cannot be unpickled" in str(error) for error in errors.values())


def test_heap_that_begins_again_is_read_at_once(end, calls):
    """Dicts are read together even if the heap has wrapped around and skipped a piece."""
    rows = [{"n": n} for n in range(6)]
    pickles = [end.send(row) for row in rows]
    lengths = [*map(len, pickles)]
    start = HEAP - sum(lengths[:3]) - 2
    columns = columns_of(pickles, end.keys, start)
    words = array("q", columns.words)
    for n in range(3, 6):
        words[n] = sum(lengths[3:n]) << PLACE | lengths[n]
    heap = b"".join(pickles[:3]) + b"()" + b"".join(pickles[3:])
    assert open_all(columns._replace(words=words.tobytes(), heap=heap)) == (dict(enumerate(rows)), {})
    assert calls == {"read_all": 1}


def test_lengths_that_cannot_be_are_not_added_up(end, calls):
    """Overlapping places are not added up to more than there is."""
    pickles = [end.send({"n": n}) for n in range(50)]
    columns = columns_of(pickles, end.keys)
    words = array("q", columns.words)
    for at in range(50):
        words[at] |= 0xFFFFFF
    values, errors = open_all(columns._replace(words=words.tobytes()))
    assert {*values, *errors} == set(range(50))
    assert calls["read_all"] == 0


def test_keys_are_believed_only_so_far():
    """More or longer keys than a worker may send are garbage."""
    arrivals = Arrivals(None, memoryview(b""))
    with pytest.raises(GarbageError, match="key 0 of dicts, of 101 bytes"):
        arrivals.accept(KEY, WORD.pack(0) + b"x" * (LONGEST + 1), 0, 1)
    with pytest.raises(GarbageError, match="key 1 of dicts"):
        arrivals.accept(KEY, WORD.pack(1) + b"x", 0, 1)
    for number in range(KEYS):
        arrivals.accept(KEY, WORD.pack(number) + b"x" * LONGEST, 0, 1)
    with pytest.raises(GarbageError, match=f"key {KEYS} of dicts"):
        arrivals.accept(KEY, WORD.pack(KEYS) + b"x", 0, 1)


def test_a_key_that_a_signal_kept_from_being_used_is_taken_for_no_other(end):
    """A task's alarm may raise just after a key was sent: the next key has its number, and dicts have the right keys."""
    tell, alarms = end.dicts._tell, [RuntimeError("an alarm")]

    def strike(number, key):
        tell(number, key)
        if alarms:
            raise alarms.pop()

    end.dicts._tell = strike
    row = {"struck": 1, "next": 2}
    end.dicts.look(row)
    with pytest.raises(RuntimeError, match="an alarm"):
        end.dicts.look(row)
    other = {"next": 3, "last": 4}
    for _ in range(2):
        end.learn(other)
    assert read_all(end.keys, end.send(other) + end.send(row)) == [other, row]
    assert end.told == [b"struck", b"next", b"last"]
