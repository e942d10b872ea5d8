"""parallelkit as a backend of joblib, and so of scikit-learn: ``register``, then ``backend="parallelkit"``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from parallelkit._executors._futures import check_initializer
from parallelkit._executors._process._reloads import Reloads
from parallelkit._executors._processes import ProcessEngine
from parallelkit._executors._width import outer_width, usable_cpus
from parallelkit._joblib._batches import Batches, Sent
from parallelkit._joblib._worker import NAME, set_up

__all__ = ["register"]

# What joblib passes to every backend. Only max_nbytes has an effect: we write no files, and fork no children.
OF_JOBLIB = {"max_nbytes", "context", "mmap_mode", "prefer", "require", "temp_folder", "verbose"}
OF_OURS = {"initializer", "initargs"}


def register() -> None:
    """Make ``backend="parallelkit"`` known to joblib, for ``Parallel`` and ``parallel_config``.

    ``joblib.Parallel`` then runs its calls in parallelkit's worker processes, and so does whatever is built
    on it, such as scikit-learn's ``GridSearchCV``, ``cross_val_score`` and forests:

    >>> from joblib import Parallel, delayed, parallel_config
    >>> from parallelkit.joblib_backend import register
    >>> register()
    >>> with parallel_config(backend="parallelkit", n_jobs=2):
    ...     Parallel()(delayed(pow)(number, 2) for number in range(5))
    [0, 1, 4, 9, 16]

    - ``n_jobs`` has joblib's meaning: without it, or with 1, no process is started; -1 is all usable cpus,
      divided by the width of the runs that this one is nested in.
    - If a worker dies (a crash, the OOM killer), ``WorkerDied`` is raised at once and names the calls that it
      was running; the other workers live on, and the next ``Parallel`` works. After an error, a ``timeout``
      or an interrupt, calls that are still running are killed.
    - Workers stay warm for the block of ``parallel_config``, or as long as the ``Parallel`` object exists,
      and end with it. There is no hidden pool.
    - ``return_as``, ``timeout``, ``batch_size``, ``pre_dispatch``, ``initializer`` and ``initargs`` work as
      usual. ``inner_max_num_threads`` caps the threads of BLAS and OpenMP in each worker (default: cpus ÷
      ``n_jobs``).
    - Arrays are sent through shared memory, not files, so ``mmap_mode`` and ``temp_folder`` have no effect.
      An array of ``max_nbytes`` (default 1 MB) or more that several calls receive is copied once and mapped
      by all workers, so do not change it while they run, or pass ``max_nbytes=None``. No other batch, nor the
      caller, sees what a batch writes to its arrays; only a ``numpy.memmap`` is the same file in the worker.
    - ``Parallel`` within a call uses threads, and within such a thread it is sequential, as with loky.

    Needs joblib: ``pip install 'parallelkit[joblib]'``. Call it once per program; calling it again does no
    harm.
    """
    try:
        from joblib import register_parallel_backend
    except ImportError as error:
        message = "parallelkit.joblib_backend needs joblib: pip install 'parallelkit[joblib]'"
        raise ImportError(message, name="joblib") from error
    register_parallel_backend(NAME, backend_class())


@cache
def backend_class() -> Any:
    """Make the backend's class; only when needed, since its bases are joblib's."""
    from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

    return type(
        "ParallelkitBackend", (Backend, AutoBatchingMixin, ParallelBackendBase), {"__module__": __name__}
    )


class Crew:
    """The worker processes of a backend: made when first needed, and replaced if they are broken, or others are asked for.

    Replaced ones live on as long as somebody still uses them.
    """

    def __init__(self) -> None:
        self._engine: ProcessEngine | None = None
        self._made_for: tuple[Any, ...] = ()

    def engine(
        self,
        width: int,
        threads: int | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> ProcessEngine:
        """Return an engine of ``width`` workers that are set up with the other arguments."""
        wanted = (width, threads, initializer, *map(id, initargs))
        if self._engine is None or self._engine.broken is not None or self._made_for != wanted:
            if threads is None and initializer is None:
                self._engine = ProcessEngine(width)
            else:
                self._engine = ProcessEngine(width, set_up, (threads, initializer, initargs))
            self._engine.reloads = Reloads()
            self._made_for = wanted
        return self._engine


class Backend:
    """The interface that joblib asks of a backend; its base class documents each method."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    uses_threads = False
    supports_sharedmem = False

    nesting_level: int | None
    inner_max_num_threads: int | None  # joblib sets it after __init__
    _workers: Batches | None = None

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)  # type: ignore[call-arg]  # joblib's
        self.parallel: Any = None
        self._initializer = initializer_of(options)
        self._crew = Crew()
        self._wanted: tuple[Any, ...] = ()
        self._max_nbytes: int | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls run at a time; the argument has to be named so, as scikit-learn passes it by keyword."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs < 0:
            from joblib import cpu_count

            share = usable_cpus() // outer_width()
            return max(1, min(share, int(cpu_count())) + 1 + n_jobs)  # joblib heeds LOKY_MAX_CPU_COUNT
        return n_jobs

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, **options: Any) -> int:
        """Get ready for this ``Parallel``; if busy with another one, send it to a sibling on the same workers."""
        from joblib.parallel import FallbackToBackend, SequentialBackend

        width = self.effective_n_jobs(n_jobs)
        if width == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if self.parallel is not None and self.parallel is not parallel:
            raise FallbackToBackend(self._sibling())
        self.parallel = parallel
        self._wanted = (width, *(initializer_of(options) or self._initializer or (None, ())))
        self._max_nbytes = options.get("max_nbytes")
        self._open()
        return width

    def _open(self) -> None:
        width, *initializer = self._wanted
        self._workers = Batches(
            self._crew.engine(width, self.inner_max_num_threads, *initializer), self._max_nbytes
        )

    def _sibling(self) -> Backend:
        other: Backend = type(self)(self.nesting_level, self.inner_max_num_threads)
        other._initializer = self._initializer
        other._crew = self._crew
        return other

    def start_call(self) -> None:
        """A new call of the ``Parallel``: what arrays contain may have changed since the last, which may have failed."""
        self.parallel._ready_batches.queue.clear()  # read ahead by the last one; joblib would run them in this one
        if self._workers is not None:
            self._workers.forget_arrays()

    def submit(self, func: Callable[[], Any], callback: Callable[[Sent], object] | None = None) -> Sent:
        """Send a batch of calls to the workers; ``callback`` is called when it is done."""
        assert self._workers is not None, "joblib submits between configure and terminate"
        return self._workers.submit(func, callback)

    apply_async = submit  # its name before joblib 1.6

    def retrieve_result_callback(self, out: Sent) -> Any:
        """Return the value of a batch that is done, or raise its error."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill the batches that run, and drop those that wait."""
        self._close()
        if ensure_ready:
            self._open()

    def terminate(self) -> None:
        """The ``Parallel`` is done; the workers stay for the next one."""
        self._close()
        self.parallel = None
        self.reset_batch_stats()  # type: ignore[attr-defined]  # joblib's

    def _close(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None  # only now: if a signal handler raised above, ``__del__`` sees to it

    def __del__(self) -> None:
        if self._workers is not None:  # joblib terminates no backend whose call has yet to begin
            self._workers.let_go()


def initializer_of(options: dict[str, Any]) -> tuple[Callable[..., object], tuple[Any, ...]] | None:
    """Return the initializer of the workers and its arguments, if one is given; TypeError for a wrong or unknown option."""
    unknown = options.keys() - OF_JOBLIB - OF_OURS
    if unknown:
        raise TypeError(
            f"the parallelkit backend takes no option {min(unknown)!r}, only {' and '.join(sorted(OF_OURS))}; "
            "timeout, batch_size and the like are options of Parallel"
        )
    initializer = options.get("initializer")
    if initializer is None:
        return None
    return initializer, check_initializer(initializer, options.get("initargs", ()))
