"""Runs on a dask cluster whose scheduler and workers are separate processes, on loopback."""

import asyncio
import logging
import os
import signal
import threading
import time
from functools import partial
from itertools import count, pairwise

import cloudpickle
import numpy as np
import pytest
import remote_tasks as far
from clusters import opened
from patience import wait_until

from parallelkit import (
    ConcurrencyLimit,
    RateLimit,
    Retry,
    Task,
    TaskCancelled,
    TaskTimeout,
    WorkerDied,
    first_success,
    iter_parallel,
    map_reduce,
    run_parallel,
)
from parallelkit._executors._cluster._client_run import ClientRun


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("dask")) as (cluster, client):
        cluster.client = client
        yield cluster


@pytest.fixture
def client(cluster):
    return cluster.client


def square(number):
    return number * number


def test_a_run_is_the_same_as_on_one_machine(client):
    """Values come by key, in order, from processes beside the dask workers."""
    results = run_parallel(lambda number: (number * number, os.getpid()), range(30), executor=client, key=str)
    assert [number * number for number in range(30)] == [value for value, _ in results.values()]
    pids = {pid for _, pid in results.values()}
    assert os.getpid() not in pids
    assert not pids & set(client.run(os.getpid).values())


def test_values_of_every_kind_come_home(client):
    """Values of every kind come back, including numbers and small dicts, which workers encode in special ways."""
    results = run_parallel(far.one_of_all, range(600), executor=client)
    assert sorted(results.failures) == [*range(9, 600, 10)]
    assert all(outcome.value == far.one_of_all(n) for n, outcome in results.outcomes.items() if outcome.ok)
    rows = run_parallel(far.row_of, range(2_000), executor=client).values()
    assert rows == [*map(far.row_of, range(2_000))]


@pytest.mark.all
def test_each_failure_is_its_tasks_own(client):
    """An error, an exit, a signal and a timeout cost one task each; the failure says in which process and on which host."""

    def act(deed):
        if deed == "raise":
            raise KeyError(deed)
        if deed == "exit":
            os._exit(3)
        if deed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == "hang":
            time.sleep(60)
        return deed

    deeds = ["raise", "exit", "kill", "hang", *map(str, range(20))]
    tasks = {deed: Task(act, deed, timeout=1 if deed == "hang" else 60) for deed in deeds}
    results = run_parallel(tasks, executor=client)
    assert list(map(str, range(20))) == list(results.successes)
    errors = {key: failure.error for key, failure in results.failures.items()}
    assert [KeyError, WorkerDied, WorkerDied, TaskTimeout] == list(map(type, errors.values()))
    assert (3, signal.SIGKILL) == (errors["exit"].exitcode, errors["kill"].signal)
    host = os.uname().nodename
    assert host in str(errors["exit"])
    assert f"process {errors['exit'].pid} on {host}" == results.failures["exit"].worker
    assert errors["hang"].killed
    assert 2 == len(client.nthreads()), "no dask worker died of it"


# Every form of a run


def test_a_stream_yields_as_results_come(client):
    """A stream yields results as they come, although one task never ends, and its close stops that task."""
    calls = [Task(time.sleep, 1000), *(Task(square, number) for number in range(1_000))]
    stream = iter_parallel(calls, executor=client)
    assert {number * number for number in range(1_000)} > {next(stream).unwrap() for _ in range(10)}
    stream.close()


@pytest.mark.all
def test_a_fold_and_a_race_work_as_ever(client):
    """A fold reduces in this process, and the losers of a race are killed on the cluster."""
    assert sum(map(square, range(50))) == map_reduce(
        square, range(50), int.__add__, initial=0, executor=client
    )
    racers = {"slow": Task(time.sleep, 60), "quick": Task(abs, -3)}
    winner = first_success(racers, executor=client)
    assert ("quick", 3) == (winner.key, winner.value)


@pytest.mark.all
def test_tasks_make_new_tasks(client):
    """``then`` adds tasks to the same run."""

    def halves(outcome):
        return [Task(int, outcome.value // 2, key=f"{outcome.key}/2")] if outcome.value > 1 else []

    results = run_parallel({"eight": lambda: 8}, executor=client, then=halves)
    assert [8, 4, 2, 1] == results.values()


@pytest.mark.all
def test_limits_are_kept_across_machines(client):
    """A rate limit holds by the workers' own clocks, whichever of them runs a task."""
    results = run_parallel(begin, range(6), executor=client, limits=RateLimit(2, per=0.3))
    starts = sorted(results.values())
    assert all(later - sooner >= 0.3 for sooner, later in zip(starts, starts[2:], strict=False))


@pytest.mark.all
def test_larger_priorities_come_first(client):
    """Tasks start in order of priority, even one at a time."""
    results = run_parallel(begin, range(6), executor=client, max_workers=1, priority=lambda number: number)
    starts = [results[number] for number in reversed(range(6))]
    assert starts == sorted(starts)


def begin(number):
    return time.monotonic()


@pytest.mark.all
def test_at_most_so_many_run_at_a_time(client):
    """``max_workers`` and ConcurrencyLimit hold."""
    for options in ({"max_workers": 1}, {"limits": ConcurrencyLimit(1)}):
        results = run_parallel(span, range(4), executor=client, **options)
        spans = sorted(results.values())
        assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))


def span(number):
    began = time.monotonic()
    time.sleep(0.02)
    return began, time.monotonic()


def test_a_failed_try_is_tried_again(client, tmp_path):
    """Failed attempts are retried, and crashes if the caller asks for that."""

    def first_time_crashes(mark):
        if not os.path.exists(mark):
            open(mark, "w").close()
            os._exit(1)
        return "done"

    results = run_parallel(
        first_time_crashes, [str(tmp_path / "mark")], executor=client, retries=Retry(1, delay=0)
    )
    assert ["done"] == results.values()
    assert 2 == results.outcomes[0].attempts


@pytest.mark.all
def test_a_run_is_resumed_from_its_checkpoint(client, tmp_path):
    """A resumed run does not repeat what was done on the cluster."""
    path = tmp_path / "journal"
    first = run_parallel(begin, range(3), key=str, executor=client, checkpoint=path)
    second = run_parallel(begin, range(5), key=str, executor=client, checkpoint=path)
    assert first.values() == second.values()[:3]


def test_the_report_has_a_lane_for_each_remote_process(client, tmp_path):
    """The report has a lane for each remote process, with its host, and times on this machine's clock."""
    results = run_parallel(time.sleep, [0.02] * 8, executor=client)
    lanes = {outcome.worker for outcome in results.outcomes.values()}
    assert 1 <= len(lanes) <= 2
    assert all(lane.endswith(f" on {os.uname().nodename}") for lane in lanes)
    assert all(0 <= outcome.started_at < results.summary.wall for outcome in results.outcomes.values())
    results.save_html(tmp_path / "page.html")
    assert min(lanes) in (tmp_path / "page.html").read_text()


def test_log_records_come_home(client, caplog):
    """Log records of tasks are handled in this process, with the task's name."""
    run_parallel(complain, ["once"], executor=client)
    (record,) = [record for record in caplog.records if record.name == "far.away"]
    assert ("once", 0, 1) == (record.getMessage(), record.task_index, record.task_attempt)


def complain(text):
    logging.getLogger("far.away").warning(text)


@pytest.mark.all
def test_large_arguments_and_results_travel_whole(client):
    """Large shared arguments are scattered once, large items one by one; arrays can be written to at both ends."""
    shared = np.arange(500_000)
    results = run_parallel(scaled, [2, 3], args=(shared,), executor=client)
    for factor, value in zip([2, 3], results.values(), strict=True):
        assert (shared * factor == value).all()
        value[0] = 7
    items = [np.full(300_000, n) for n in range(4)]
    assert [n * 300_000 for n in range(4)] == run_parallel(np.sum, items, executor=client).values()
    text, error = run_parallel(written, [False, True], executor=client).outcomes.values()
    assert 2_000_000 == len(text.value) == len(str(error.error))


def scaled(factor, array):
    return array * factor


def written(wrong):
    text = "x" * 2_000_000
    if wrong:
        raise ValueError(text)
    return text


@pytest.mark.all
def test_a_large_item_on_its_way_holds_nobody_up(client, monkeypatch):
    """Sending a large item delays neither other tasks nor timeouts."""
    go = slow_down(client, monkeypatch)
    stream = iter_parallel(len, [b"x" * (2 << 20), *[b"y"] * 20], executor=client)
    assert [1] * 20 == [next(stream).unwrap() for _ in range(20)]
    go.set()
    assert [2 << 20] == [outcome.unwrap() for outcome in stream]


def slow_down(client, monkeypatch):
    """Block every scatter until the event is set."""
    scatter, go = client.scatter, threading.Event()

    async def scatter_late(*things, **options):
        while not go.is_set():  # noqa: ASYNC110 (an event of asyncio cannot be set from here)
            await asyncio.sleep(0.01)
        return await scatter(*things, **options)

    monkeypatch.setattr(client, "scatter", scatter_late)
    return go


@pytest.mark.all
def test_a_large_function_on_its_way_can_be_stopped(client, monkeypatch):
    """A run that is over does not wait for a function that is still being sent."""
    go = slow_down(client, monkeypatch)
    began = time.monotonic()
    results = run_parallel(scaled, range(3), args=(np.arange(500_000),), executor=client, run_timeout=0.3)
    assert time.monotonic() - began < 15
    go.set()
    assert [TaskCancelled] * 3 == [type(failure.error) for failure in results.failures.values()]


@pytest.mark.all
def test_a_worker_that_goes_while_it_gets_something_costs_nothing(client, monkeypatch):
    """If a worker disappears during a transfer, the data are sent again; if dask refuses them altogether, the run ends with the reason."""
    scatter, errors = client.scatter, [OSError("gone"), OSError("gone, too")]

    async def scatter_at_last(*things, **options):
        if errors:
            raise errors.pop()
        return await scatter(*things, **options)

    monkeypatch.setattr(client, "scatter", scatter_at_last)
    assert [2 << 20] == run_parallel(len, [b"x" * (2 << 20)], executor=client).values()
    errors.append(ValueError("not of this kind"))
    results = run_parallel(len, [b"x" * (2 << 20)], executor=client)
    assert "dask does not take tasks any more" in str(results.stopped)


def test_nothing_is_left_on_the_workers(cluster, client):
    """When a run has returned, its processes are gone, and the scheduler has no trace of it."""
    results = run_parallel(lambda _: os.getpid(), range(50), executor=client)
    for pid in set(results.values()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    wait_until(lambda: not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
    assert not [name for name in client.run_on_scheduler(plugins) if "parallelkit" in name]


def plugins(dask_scheduler):
    return list(dask_scheduler.plugins)


@pytest.mark.parametrize(
    "run", [run_parallel, lambda *given, **options: list(iter_parallel(*given, **options))]
)
def test_an_interrupt_as_a_run_is_opened_leaves_none_open(client, run, monkeypatch):
    """A scheduler that does not answer is not waited for, and one that has answered is told that the run is over."""
    went_on = []

    def press(*_):
        signal.raise_signal(signal.SIGINT)
        went_on.append(True)

    monkeypatch.setattr(ClientRun, "_hear_width", press)
    with pytest.raises(KeyboardInterrupt):
        run(abs, [1], executor=client)
    assert not went_on
    assert not [name for name in client.run_on_scheduler(plugins) if "parallelkit" in name]


def test_a_client_may_be_closed_as_soon_as_a_run_is_over(cluster, monkeypatch):
    """The run's thread may come to give its connection back only then; that logs no error."""
    from distributed import Client

    late, hang_up = [], ClientRun._hang_up
    monkeypatch.setattr(ClientRun, "_hang_up", property(lambda run: partial(late.append, run)))
    with Client(cluster.address, set_as_default=False) as own:
        run_parallel(abs, [1], executor=own)
        wait_until(lambda: late)
    (run,) = late
    hang_up(run)
    assert own.scheduler is None


@pytest.mark.all
def test_two_runs_share_the_cluster(client):
    """Two runs share the cluster: neither waits for the other to end, nor ends with it."""
    many = iter_parallel(time.sleep, [0.01] * 100, executor=client, run_timeout=30)
    next(many)
    assert [1, 4] == run_parallel(square, [1, 2], executor=client).values()
    assert 99 == sum(outcome.ok for outcome in many)


# Clusters that do not fit


@pytest.mark.parametrize("registered", [False, pytest.param(True, marks=pytest.mark.all)])
@pytest.mark.parametrize("brought_by", ["items", "function"])
def test_a_class_is_as_the_script_has_it(client, brought_by, registered, request):
    """A run has the script's current version of a class, even on workers where another run still uses an earlier one."""

    class Box:
        factor = 1

    def look(box):
        return box.factor, os.getpid()

    def look_itself(_):
        return Box.factor, os.getpid()

    fn, make = (look, Box) if brought_by == "items" else (look_itself, int)
    if registered:
        cloudpickle.register_pickle_by_value(far)
        request.addfinalizer(partial(cloudpickle.unregister_pickle_by_value, far))
    stream = iter_parallel(fn, (make() for _ in count()), executor=client)
    seen = {next(stream).unwrap() for _ in range(100)}
    Box.factor = 2
    then = set(run_parallel(fn, [make() for _ in range(100)], executor=client).values())
    stream.close()
    assert ({1}, {2}) == ({factor for factor, _ in seen}, {factor for factor, _ in then})
    assert {pid for _, pid in seen} & {pid for _, pid in then}, "the runs shared no process"


def test_what_cannot_be_a_cluster_is_refused(client):
    """A closed client, or something of the wrong kind, is refused."""
    from distributed import Client

    gone = Client(client.scheduler.address, set_as_default=False)
    gone.close()
    with pytest.raises(ValueError, match="must be a Client that is connected"):
        run_parallel(square, [1], executor=gone)


def test_a_function_that_cannot_travel_is_refused(client):
    """A function that cannot be pickled is refused before anything is sent."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        run_parallel(threading.Lock().acquire, [1], executor=client)


def test_a_module_that_is_missing_there_is_each_tasks_failure(client, tmp_path, monkeypatch):
    """If a module is missing on the cluster, each task fails, and the cluster works afterwards, where dask itself would hang."""
    (tmp_path / "only_here.py").write_text("def double(number):\n    return 2 * number\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    began = time.monotonic()
    results = run_parallel(only_here.double, range(3), executor=client)
    assert time.monotonic() - began < 20
    assert any("upload_file" in note for note in results.failures[0].error.__notes__)
    assert [ModuleNotFoundError] * 3 == [type(failure.error) for failure in results.failures.values()]
    cloudpickle.register_pickle_by_value(only_here)
    try:
        assert [0, 2, 4] == run_parallel(only_here.double, range(3), executor=client).values()
    finally:
        cloudpickle.unregister_pickle_by_value(only_here)
