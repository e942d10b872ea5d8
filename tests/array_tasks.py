"""Tasks on arrays that tests run in worker processes."""

import os
import resource
import weakref
from pathlib import Path
from threading import Lock

import numpy as np

kept = []
returned = []


def total(array):
    return float(array.sum())


def give_back(value):
    return value


def double(array):
    return array * 2


def make(number):
    return np.full(100_000, float(number))


def count_earlier(_):
    """An array whose elements tell how many of those that were returned before are still there."""
    array = make(sum(earlier() is not None for earlier in returned))
    returned.append(weakref.ref(array))
    return array


def spoil(array):
    """Overwrite the whole item."""
    array[:] = -1.0
    return os.getpid()


def spoil_first(array):
    array[0] = 9.0
    return float(array[0])


def call_back(*args, **kwargs):
    """The arguments, and which of them are one object: a text given twice, and a bytearray in a list and by itself."""
    return args, kwargs, (args[0] is kwargs["again"], args[2][0] is args[3])


def keep_whole(array):
    """Keep the item; return how many descriptors this process has, and the first element of every item kept so far."""
    kept.append(array)
    return len(os.listdir("/proc/self/fd")), [float(each[0]) for each in kept]


def keep(array):
    """Keep a view of part of the item; return the first element of every view kept so far."""
    kept.append(array[10:20])
    return [float(part[0]) for part in kept]


def rows(array):
    """Two views of the item."""
    return array[::1000], array[:50_000]


def facts(array):
    return (
        array.dtype.str,
        array.shape,
        array.flags.c_contiguous,
        array.flags.f_contiguous,
        array.flags.writeable,
    )


def die_at(bad, array):
    if array[0] == bad:
        os._exit(5)
    return float(array[-1])


def add_lock_at(bad, array):
    return (array, Lock()) if array[0] == bad else array


def count_blocks(_):
    """How many blocks are mapped here."""
    return Path("/proc/self/maps").read_text().count("/memfd:parallelkit-block")


def parts(item):
    return {name: (type(part).__name__, len(part)) for name, part in item.items()}


def cramp():
    """Leave this worker 32 MB of address space more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), resource.RLIM_INFINITY))


def fork_and_spoil(array):
    """Double the item, between two forks that overwrite all of it; return the sum of it, and spoil it."""
    have_a_child_spoil(array)
    array *= 2
    have_a_child_spoil(array)
    total = float(array.sum())
    array[:] = -1.0
    return total


def have_a_child_spoil(array):
    child = os.fork()
    if child == 0:
        array[:] = -1.0
        os._exit(0)
    os.waitpid(child, 0)


def describe(item, *arrays, **named):
    return [(array.flags.writeable, float(array[0])) for array in (*arrays, *named.values())]


def write(item, array):
    array[item] = 1.0


def make_writable(array):
    array.flags.writeable = True


def compile_for_writable(array):
    """As numba says it of a function that is compiled for arrays that may be written to."""
    raise TypeError("No matching definition for argument type(s) readonly array(float64, 1d, C)")


def write_through_a_library(array):
    """As xarray tells of it."""
    try:
        array[0] = 1.0
    except ValueError as error:
        raise ValueError("Assignment destination is a view. Do you want to .copy() array first?") from error


def write_past_numpy(array):
    memoryview(array)[0] = 1.0
