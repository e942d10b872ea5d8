"""The rows of the performance budget: the limits that our figures must keep."""

from __future__ import annotations

from benchmarks._budget import BEST, Limit, Row
from benchmarks._question import OURS

THREADS = "ThreadPoolExecutor.map"
CHUNKED = ("ProcessPoolExecutor.map, chunked", "multiprocessing Pool.map")
IN_THREADS, IN_PROCESSES = f"{OURS}, 8 threads", f"{OURS}, 2 processes"
POOL_AND_REDUCE = "multiprocessing Pool.map + reduce"
THOUSAND_NAPS = "4,000 naps, 1,000 at a time"


def no_ops() -> list[Row]:
    """The cost of a task that does nothing."""
    return [
        Row(
            what="no-op in 8 threads",
            question="overhead_threads",
            case="None",
            limits=(Limit(1 / 6, THREADS),),
            peers=(THREADS,),
        ),
        *(
            Row(
                what=f"no-op in 2 processes, results: {kind}",
                question="overhead_processes",
                case=kind,
                limits=(Limit(share, "joblib"),),
                peers=("joblib", *CHUNKED),
            )
            for kind, share in {"None": 1 / 4, "ints": 1 / 4, "small dicts": 1 / 2}.items()
        ),
        *(
            Row(
                what=f"cost per task, {tasks} against 10,000 tasks, {where.partition(', ')[2]}",
                question="scaling",
                case=tasks,
                ours=where,
                limits=(Limit(1.2, (where, "10,000")),),
            )
            for where in (IN_THREADS, IN_PROCESSES)
            for tasks in ("1,000", "100,000", "1,000,000")
        ),
    ]


def work() -> list[Row]:
    """The gain from distributing real work."""
    return [
        *(
            Row(
                what=f"{case} in 2 processes",
                question="short_tasks",
                case=case,
                limits=(Limit(1, BEST),),
                peers=(*CHUNKED, "mpire"),
            )
            for case in ("5,000 of 50 µs", "500 of 1 ms")
        ),
        Row(
            what="tokenizing the standard library",
            question="tokenize_stdlib",
            case="one file in eight",
            limits=(Limit(1, BEST),),
            peers=("ProcessPoolExecutor.map", "multiprocessing Pool.map"),
        ),
        *(
            Row(
                what=f"word count of the standard library, {case}",
                question="word_count",
                case=case,
                limits=(Limit(1, POOL_AND_REDUCE),),
                peers=(POOL_AND_REDUCE,),
            )
            for case in ("workers started for it", "warm workers")
        ),
        *(
            Row(
                what=f"uneven lengths, {case}",
                question="skewed",
                case=case,
                limits=(Limit(limit),),
            )
            for case, limit in {
                "log-normal": 1.03,
                "2 s first": 1.05,
                "2 s last": 1.05,
                "in turns": 1.05,
            }.items()
        ),
        *(
            Row(
                what=f"8 MB arrays, {case}",
                question="large_arrays",
                case=case,
                limits=(Limit(1 / 5, BEST),),
                peers=("ProcessPoolExecutor.map", "joblib"),
            )
            for case in ("in", "in and out", "out")
        ),
    ]


def waiting() -> list[Row]:
    """Many waiting threads, against coroutines; "at par" means within 5 %."""
    return [
        Row(
            what="4,000 naps of 0.1 s, 1,000 threads, warm",
            question="naps",
            case=THOUSAND_NAPS,
            ours=f"{OURS}, warm",
            limits=(Limit(1.05, "asyncio"),),
            peers=("asyncio",),
        ),
        Row(
            what="the same, cold",
            question="naps",
            case=THOUSAND_NAPS,
            ours=f"{OURS}, cold",
            limits=(Limit(1.2, "asyncio"), Limit(1, "ThreadPoolExecutor, cold")),
            peers=("asyncio", "ThreadPoolExecutor, cold"),
        ),
    ]


def trouble() -> list[Row]:
    """The cost of hung tasks and killed workers."""
    return [
        *(
            Row(
                what=f"past the timeout until all is back, {case}",
                question="past_timeout",
                case=case,
                ours=f"{OURS}, processes",
                limits=(Limit(20),),
                peers=("pebble ProcessPool",),
            )
            for case in ("one of two workers hangs", "both workers hang")
        ),
        Row(
            what="one task in 100 kills its worker",
            question="killed_workers",
            case="one in 100 dies",
            limits=(Limit(1.15, (OURS, "none dies")),),
        ),
        Row(
            what="interpreter exit with a hung thread",
            question="hung_exit",
            case="one thread hangs",
            limits=(Limit(0.3),),
        ),
    ]


def beginnings() -> list[Row]:
    """The cost of importing and starting up."""
    standard = "both standard pools"
    return [
        Row(
            what="import parallelkit",
            question="import_time",
            case="a bare interpreter",
            limits=(Limit(1, standard),),
            peers=(standard,),
        ),
        Row(
            what="bare interpreter to four results, 2 processes",
            question="first_results",
            case="a bare interpreter",
            limits=(Limit(100),),
            peers=("ProcessPoolExecutor, fork", "pebble ProcessPool"),
        ),
        Row(
            what="start of 16 workers",
            question="start_workers",
            case="start of 16 workers",
            limits=(Limit(60),),
            peers=("multiprocessing Pool, fork",),
        ),
        Row(
            what="a second, warm run of four tasks",
            question="start_workers",
            case="a warm run of four",
            limits=(Limit(2),),
            peers=("ProcessPoolExecutor, fork",),
        ),
    ]


def memory() -> list[Row]:
    """The memory that a million tasks take."""
    return [
        *(
            Row(
                what=f"a million collected, {where.partition(', ')[2]}",
                question="memory_collected",
                case="a million tasks",
                ours=where,
                limits=(Limit(150),),
            )
            for where in (IN_THREADS, IN_PROCESSES)
        ),
        *(
            Row(
                what=f"a million streamed, {where.partition(', ')[2]}",
                question="memory_streamed",
                case="a million tasks",
                ours=where,
                limits=(Limit(8),),
            )
            for where in (IN_THREADS, IN_PROCESSES)
        ),
    ]


def on_a_cluster() -> list[Row]:
    """The cost of a task on a dask cluster."""
    return [
        Row(
            what="no-op on a dask cluster of two workers",
            question="dask_cluster",
            case="2,000 calls of nothing",
            limits=(Limit(0.15),),
            peers=("client.map and gather",),
        ),
        Row(
            what="20 naps of 0.2 s there",
            question="dask_cluster",
            case="20 naps of 0.2 s, ideal 100 ms",
            limits=(Limit(105),),
        ),
    ]


ROWS = [*no_ops(), *work(), *waiting(), *trouble(), *beginnings(), *memory(), *on_a_cluster()]
