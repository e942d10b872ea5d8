"""How many tasks a worker is given at once, by how long such tasks took."""

import pytest

from parallelkit._executors._process._pace import AHEAD, LONGEST_BATCH, Pace, Paces


def measured(mean, batches=20):
    """A pace of tasks that all took the same."""
    pace = Pace()
    for _ in range(batches):
        pace.measure(pace.limit, pace.limit * mean)
    return pace


def test_first_batch_is_a_single_task():
    """Of what was never measured, one is handed over at a time."""
    assert 1 == Pace().share(waiting=1000, workers=2, idle=2)


@pytest.mark.parametrize("mean", [1e-6, 50e-6, 1e-3, 2.6e-3, 0.1])
def test_batch_is_about_ten_milliseconds_of_work(mean):
    """Long tasks go one by one, short ones in hundreds; half a task more or less does not matter."""
    limit = measured(mean).limit

    assert limit == 1 or limit * mean <= AHEAD + mean / 2
    assert limit in (LONGEST_BATCH, 1) or limit * mean > AHEAD - mean / 2


def test_long_tasks_may_be_handed_over_by_themselves():
    """What takes several milliseconds need not wait until a generator yields a whole batch; nor what was never measured."""
    long, short = measured(4e-3), measured(2e-3)

    assert [True] * 3 == [Pace().single, long.single, long.again().single]
    assert [False] * 2 == [short.single, short.again().single]


def test_batches_grow_in_few_steps():
    """Five batches are enough for a function of which nothing was known."""
    assert LONGEST_BATCH == measured(1e-7, batches=4).limit


def test_crumbs_are_not_shared_out():
    """What is done in a tenth of a millisecond is not worth a second worker; what takes longer is halved."""
    pace = measured(1e-6)

    assert 60 <= pace.share(waiting=60, workers=2, idle=2)
    assert 500 == pace.share(waiting=1000, workers=2, idle=2)
    assert 1 == measured(0.01).share(waiting=2, workers=2, idle=2)


def test_what_is_soon_done_is_given_out_whole():
    """The last idle worker takes all that is left; of more than that, and of long tasks, some is kept back."""
    pace = measured(1e-6)

    assert 500 == pace.share(waiting=500, workers=2, idle=1)
    assert 1500 == pace.share(waiting=3000, workers=2, idle=1)
    assert 25 == measured(100e-6).share(waiting=100, workers=4, idle=1)


def test_batches_get_smaller_towards_the_end():
    """So that nobody is left with much more than the others, however uneven the lengths."""
    pace, waiting, given = measured(100e-6), 200, []
    while waiting:
        given.append(pace.share(waiting, workers=2, idle=0))
        waiting -= given[-1]

    assert sorted(given, reverse=True) == given
    assert pace.limit == given[0]
    assert 1 == given[-1]


def test_next_run_of_a_function_begins_at_its_pace():
    """A warm executor knows what a function took; of any other it knows nothing."""
    paces = Paces()
    paces.note(b"quick", measured(1e-6))

    assert LONGEST_BATCH == paces.recall(b"quick").limit
    assert 1 == paces.recall(b"other").limit


def test_what_is_remembered_gives_way_to_the_first_measurement():
    """Where the same function takes long this time, one task that shows it is enough."""
    paces = Paces()
    paces.note(b"job", measured(1e-6))
    pace = paces.recall(b"job")
    pace.measure(1, 1.0)

    assert 1 == pace.limit


def test_only_some_functions_are_remembered():
    """Neither many nor large ones are kept."""
    paces = Paces()
    for number in range(1000):
        paces.note(b"job %d" % number, measured(1e-6))
    paces.note(bytes(1 << 20), measured(1e-6))

    assert [1, 1, LONGEST_BATCH] == [
        paces.recall(job).limit for job in (b"job 0", bytes(1 << 20), b"job 999")
    ]
