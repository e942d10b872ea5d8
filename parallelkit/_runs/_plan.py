"""``Plan``: a run that has been validated, and how the parts are made that it is driven with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from parallelkit._errors import InputError
from parallelkit._executors._choice import open_engine
from parallelkit._executors._contract import Engine, Job, Port
from parallelkit._executors._width import has_global_lock, outer_width, usable_cpus
from parallelkit._facts import Facts
from parallelkit._form import check_form, shape_of
from parallelkit._input._growth import Growth
from parallelkit._input._intake import Intake
from parallelkit._input._keys import check_keys
from parallelkit._input._portion import Portion
from parallelkit._input._recall import Recall, memory_recall
from parallelkit._input._source import AHEAD_OF_LIST, WINDOW, Source, Window
from parallelkit._interrupt import Guard, Interrupt
from parallelkit._ledger import Ledger, numbered
from parallelkit._loop import Loop
from parallelkit._marks import UNSET
from parallelkit._options import Checked, check_options
from parallelkit._progress import open_bar
from parallelkit._raised import in_short, repr_of
from parallelkit._results import Results
from parallelkit._runs._interruptible import InterruptibleCall
from parallelkit._scheduler import Scheduler
from parallelkit._scheduling._ready import Gated
from parallelkit._scheduling._stopping import StopRule
from parallelkit._unrecorded import Unrecorded
from parallelkit._world import World, the_world

if TYPE_CHECKING:
    from parallelkit._runs._queues import OutcomeQueue


class Plan:
    """A run that has been validated and not started; makes the parts that it is driven with."""

    def __init__(self, options: Checked, fn: Callable[..., Any] | None, intake: Intake, world: World) -> None:
        self.options = options
        self.fn = fn
        self.intake = intake
        self.world = world
        self.journal = Unrecorded()
        self.began_at = 0.0  # set by ``facts``, at the start of the run
        self.growth: Growth | None = None
        self.cache: tuple[Recall, ...] = ()
        self.recalls: tuple[Recall, ...] = ()
        """Recalls in addition to those of a cache and of the journal."""
        self.delayed: Sized = ()
        """The tasks that wait for a retry."""

    @classmethod
    def make(cls, fn: Any, items: Any, options: Mapping[str, Any], *, stream: bool = False) -> Self:
        """Validate everything that can be validated before anything runs; an InputError has results, as that of a run."""
        checked = check_options(options, order="completion" if stream else "input")
        if stream and checked.order == "key":
            raise ValueError("order must be 'input' or 'completion' for a stream, got 'key'")
        tasks, world = items is UNSET, the_world.get()
        try:
            source = check_form(fn, items, checked)
            intake = Intake(
                source, shape_of(checked, None if tasks else fn, source), world.now, lazily=stream
            )
        except InputError as error:
            error.results = Results(Ledger())
            raise
        if checked.order == "key" and intake.keys is not None:
            check_keys(numbered(intake.keys, 0))
        own_fn = None if tasks or checked.then is not None else fn
        plan = cls(world.stage(checked), own_fn, intake, world)
        plan.cache = memory_recall(own_fn, checked.args, checked.kwargs, checked.star)
        if checked.checkpoint is not None:
            from parallelkit._journal._recorder import Recording

            plan.journal = Recording(
                checked.checkpoint,
                None if tasks else fn,
                source,
                checked.args,
                checked.kwargs,
                calls=own_fn is None,
            )
        return plan

    def engine(self, *, stream: bool = False) -> tuple[Engine, bool]:
        """The executor, and whether it is the run's own to close. ``stream``: the caller gets outcomes before the run is over."""
        options = self.options
        alone = self.intake.at_hand and not stream and options.then is None and options.on_event is None
        return open_engine(options.executor, options.max_workers, alone=alone)

    def facts(self, engine: Engine) -> Facts:
        """What is known about the run at its start."""
        options, executor = self.options, self.options.executor
        name = executor if isinstance(executor, str) else type(executor).__name__
        self.began_at = self.world.now()
        return Facts(
            executor=name,
            max_workers=engine.max_workers,
            began_at=self.began_at,
            cpus=usable_cpus(),
            one_at_a_time=has_global_lock(),
            timeout=options.timeout,
            timeouts_enforced=executor != "inline" or self.world.staged,
            limits=tuple(map(repr, options.limits)),
            outer=outer_width() if executor == "threads" and options.max_workers is None else 1,
        )

    def enter(self, book: Ledger | OutcomeQueue, portion: Portion) -> None:
        """Give tasks just read, or made by ``then``, their keys and their rows in the book."""
        self.intake.number(portion, len(book))
        rows = portion.keys, len(portion.items), self.world.now(), portion.parent
        if isinstance(book, Ledger):
            book.admit(*rows, portion.read_at)
        else:
            book.admit(*rows)

    def job(
        self,
        key: Callable[[int], Any],
        whole: bool,
        guard: Guard,
        folds: bool = False,
    ) -> Job:
        """What all attempts have in common. ``key`` maps an index to its key; ``guard``, ``folds``: see ``Job``.

        ``whole``: the caller sees no outcome before the run is over.
        """
        options, shape = self.options, self.intake.shape
        exact = shape.gated or shape.bounded
        star = options.star and self.fn is not None
        return Job(
            self.fn,
            options.args,
            options.kwargs,
            star,
            exact,
            options.wary,
            label=lambda index: label(key(index)),
            # With limits, priorities or retries, tasks may wait that the port has not been given yet.
            ended=lambda: self.intake.exhausted and not (exact or self.delayed),
            patient=whole and not exact and options.on_event is None and options.checkpoint is None,
            folds=folds,
            guard=guard,
            tentative=shape.tentative,
        )

    def loop(
        self,
        book: Ledger | OutcomeQueue,
        key: Callable[[int], Any],
        port: Port,
        source: Source,
        interrupt: Interrupt,
    ) -> Loop:
        """The loop that drives the run, with its scheduler."""
        options = self.options
        call_user = InterruptibleCall(interrupt)
        gated = Gated(options.limits, wake=port.wake) if self.intake.shape.gated else None
        if gated is not None:
            port.announce(gated.begun)
        scheduler = Scheduler(
            self.journal.record(book, self.intake.fail, call_user),
            label=lambda index: label(key(index)),
            timeout=options.timeout,
            policy=options.policy,
            stop_rule=StopRule(
                end_at=None if options.run_timeout is None else self.began_at + options.run_timeout,
                end_reason=f"run_timeout of {options.run_timeout or 0:g} s",
                raise_first=options.on_error == "raise",
                max_failures=options.max_failures,
            ),
            gated=gated,
            call_user=call_user,
        )
        self.delayed = scheduler.delayed
        loop = Loop(scheduler, port, source, self.world.now)
        loop.bar, loop.total = open_bar(options.progress), self._total
        loop.interrupt = interrupt
        loop.be_exact = port.be_exact if self.intake.shape.tentative else None
        loop.flows = self.intake.flows
        if options.on_event is not None:
            scheduler.news = []
            from parallelkit._events import Observer

            loop.observer = Observer(options.on_event, key, self.began_at, port.fate)
        loop.recalls = (*self.recalls, *self.cache, *self.journal.recalls)
        self.journal.stop_by(loop.ask_to_stop)
        if options.then is not None:
            book.keep_settled()
            enter = partial(self.enter, book)
            loop.grow = self.growth = Growth(options.then, self.intake, loop, book.take_settled, enter)
        return loop

    def _total(self) -> int | None:
        size = self.intake.read_so_far if self.intake.exhausted else self.intake.size
        return size if size is None or self.growth is None else size + self.growth.children

    def window(self, engine: Engine, *, direct: bool) -> Window:
        """How far to read ahead. With priorities, all of a sized input: any item may have to run first.

        ``direct``: the loop reads the input itself; then a list is read further ahead than anything else, unless a
        failure may stop the run (less is run for nothing) or a cache is asked about each item, which may take seconds.
        """
        whole = self.intake.size if self.intake.shape.ranked else None
        least = WINDOW * engine.max_workers
        if direct and self.intake.at_hand and not (self.options.wary or self.cache):
            least = max(least, getattr(engine, "ahead_of_list", AHEAD_OF_LIST))
        return Window(least, self.options.buffersize or whole)


def label(key: Any) -> str:
    """The name of a task in messages; a key may be a whole document."""
    return f"task {in_short(repr_of(key), 200)}"
