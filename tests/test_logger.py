"""The log: whatever listens to it, and whatever becomes of that, runs go on."""

import importlib
import io
import logging
import logging.handlers
import sqlite3
import sys
import threading
from contextlib import contextmanager
from unittest import mock

import pytest

from parallelkit import ProcessExecutor, ThreadExecutor, iter_parallel, run_parallel
from parallelkit._journal._file import Journal
from parallelkit._worker._loggers import target


class Deaf(logging.Handler):
    """Cannot take a record, as one whose stream is closed where stderr is closed as well."""

    def emit(self, record):
        raise OSError("nobody hears this")


@contextmanager
def unheard():
    """Nobody hears of what is logged, nor that it was not heard. From a fixture pytest would take stderr back."""
    handler, stderr = Deaf(), sys.stderr
    logging.getLogger().addHandler(handler)
    sys.stderr = io.StringIO()
    sys.stderr.close()
    try:
        yield
    finally:
        sys.stderr = stderr
        logging.getLogger().removeHandler(handler)


def refuse(event):
    raise ValueError("no more of this")


def say(item):
    logging.getLogger("tasks").warning("a word from task %s", item)
    return item


@pytest.mark.parametrize("executor", ["threads", "inline"])
@pytest.mark.parametrize(
    "options", [{"on_event": refuse}, {"progress": {"file": object(), "disable": False}}]
)
def test_what_cannot_be_told_of_a_listener_or_a_bar_costs_no_outcome(executor, options):
    """If a listener or bar fails, and the log does as well, the run goes on without them."""
    with unheard():
        assert [0, 1, 2] == run_parallel(abs, range(3), executor=executor, **options).values()
        assert 3 == len([*iter_parallel(abs, range(3), executor=executor, **options)])


def test_what_cannot_be_told_of_a_value_costs_its_record_alone(tmp_path):
    """If a value cannot be recorded, and the log fails, its task has succeeded all the same."""
    with unheard():
        results = run_parallel(
            lambda item: (item for _ in "x"), ["a", "b"], key=str, checkpoint=tmp_path / "journal"
        )
    assert ["a", "b"] == [next(value) for value in results.values()]


def test_a_run_whose_journal_cannot_be_written_is_stopped_all_the_same(tmp_path, monkeypatch):
    """If the journal cannot be written, and the log fails, the run is stopped, and its results say why."""

    def full(self, records):
        raise sqlite3.OperationalError("the disk is full")

    monkeypatch.setattr(Journal, "write", full)
    with unheard():
        results = run_parallel(abs, [1], key=str, checkpoint=tmp_path / "journal")
    assert "the disk is full" in results.stopped


def test_what_a_task_logs_in_a_process_costs_it_nothing():
    """If the handling of a record fails that a task has logged in a process, the task succeeds."""
    with unheard():
        assert [0, 1] == run_parallel(say, range(2), executor="processes", max_workers=1).values()


def test_a_callback_that_ends_in_no_exception_costs_no_other_call():
    """If a callback raises SystemExit, and the log in which to tell so fails, the next call is made."""
    with unheard(), ThreadExecutor(1) as executor:
        future = executor.submit(abs, -1)
        future.add_done_callback(lambda _: sys.exit())
        assert 2 == executor.submit(abs, -2).result(30)


def test_a_record_names_the_place_where_it_was_made(caplog):
    """A record of our logger names the place where it was made, as one of the standard logger does."""
    run_parallel(abs, [1], on_event=refuse)
    (record,) = caplog.records
    assert ("parallelkit", "_events.py", "_say") == (record.name, record.filename, record.funcName)


LEGACY = """
import logging, logging.config, logging.handlers, queue

logger = logging.getLogger(__name__)
logger.setLevel("INFO")

def write_to(*paths):
    for path in paths:
        handler = logging.FileHandler(path)
        handler.setFormatter(logging.Formatter("%(name)s %(message)s %(task_index)s", defaults={"task_index": "of a worker"}))
        logger.addHandler(handler)

def configure(path, propagate):
    handlers = {"file": {"class": "logging.FileHandler", "filename": path, "formatter": "indexed"}}
    formatters = {"indexed": {"format": "%(message)s %(task_index)s", "defaults": {"task_index": "of a worker"}}}
    both = {"level": "INFO", "handlers": ["file"]}
    loggers = {} if propagate else {__name__: both | {"propagate": False}}
    logging.config.dictConfig(
        {"version": 1, "disable_existing_loggers": False, "handlers": handlers, "formatters": formatters,
         "loggers": loggers, "root": both}
    )

def say(item):
    logger.info(item)
"""


@pytest.fixture
def legacy(tmp_path, monkeypatch):
    """A module with a logger; what becomes of that, and of the root's handlers, is undone."""
    (tmp_path / "legacy_log.py").write_text(LEGACY)
    monkeypatch.syspath_prepend(tmp_path)
    before = logging.root.handlers[:], logging.root.level
    yield tmp_path
    logger = logging.getLogger("legacy_log")
    opened = [each for each in [*logger.handlers, *logging.root.handlers] if each not in before[0]]
    logger.handlers, logger.propagate = [], True
    logging.root.handlers[:], logging.root.level = before
    for handler in opened:
        handler.close()
    sys.modules.pop("legacy_log", None)


def test_a_handler_that_a_module_attaches_writes_each_record_of_a_worker_once(legacy):
    """If a module attaches a file as it is imported, the program writes to it what tasks log, and the worker does not."""
    with (legacy / "legacy_log.py").open("a") as module:
        module.write(f"write_to({str(legacy / 'log')!r})\n")
    say = importlib.import_module("legacy_log").say
    run_parallel(say, ["a", "b"], executor="processes", max_workers=1).raise_failures()
    assert ["legacy_log a 0", "legacy_log b 1"] == (legacy / "log").read_text().splitlines()


OWN_CLASS = """
import logging
import logging.handlers

class Own(logging.Logger):
    def __init__(self, name, level=logging.NOTSET):
        super().__init__(name, level)
        self.told = []

    def tell(self, text):
        self.told.append(text)
        self.info(text)

before = logging.getLoggerClass()
logging.setLoggerClass(Own)
logger = logging.getLogger(__name__)
logger.told.append("imported")
logger.propagate = False
plain = logging.getLogger("own_class_not")
logging.setLoggerClass(type("Later", (Own,), {}))
logging.getLogger(__name__)
logging.setLoggerClass(before)

def say(item):
    logger.tell(item)
    child = logging.getLogger(__name__ + ".child")
    return logger.told, child.getEffectiveLevel(), type(plain).__name__
"""


@pytest.fixture
def own_class(tmp_path, monkeypatch, caplog):
    """A module whose logger is of a class of its own, and passes nothing to the root; afterwards, neither is there."""
    (tmp_path / "own_class.py").write_text(OWN_CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(logging.getLogger("own_class_not"), "level", logging.DEBUG)
    module = importlib.import_module("own_class")
    module.logger.addHandler(caplog.handler)
    yield module
    del sys.modules["own_class"], logging.root.manager.loggerDict["own_class"]


def test_a_logger_has_the_class_that_its_module_gives_it(own_class, caplog):
    """It was made before, for its level, and import astropy failed in every worker. Others keep the usual class."""
    own_class.logger.setLevel(15)
    results = run_parallel(own_class.say, ["a"], executor="processes", max_workers=1)
    assert [(["imported", "a"], 15, "Logger")] == results.values()
    assert ["a"] == [record.getMessage() for record in caplog.records]


def test_a_logger_has_its_class_before_its_module_is_asked_for(own_class, caplog):
    """A task that names the logger need not name the module; its records lacked what the module's handlers need."""
    own_class.logger.setLevel(15)
    logger = own_class.logger
    results = run_parallel(
        lambda text: logger.tell(text) or logger.told, ["a"], executor="processes", max_workers=1
    )
    assert [["imported", "a"]] == results.values()
    assert ["a"] == [record.getMessage() for record in caplog.records]


class Told:
    """Tells by which thread it is pickled."""

    threads: list[threading.Thread] = []  # noqa: RUF012  # shared on purpose

    def __reduce__(self):
        self.threads.append(threading.current_thread())
        return str, ()


@pytest.mark.parametrize("kind", ["Local", "Unfit", "Large"])
def test_a_logger_of_a_class_of_the_script_is_of_it_in_workers(monkeypatch, kind):
    """Each call of a method that only that class has failed there. If the class cannot be sent, the logger is of the usual one."""
    told = Told()

    class Local(logging.Logger):
        def shout(self, text):
            self.error(text.upper(), told)

    class Unfit(Local):
        lock = threading.Lock()

    class Large(Local):
        table = bytes(1 << 17)

    logger = {"Local": Local, "Unfit": Unfit, "Large": Large}[kind]("local_class")
    monkeypatch.setitem(logging.root.manager.loggerDict, "local_class", logger)
    monkeypatch.setattr(Told, "threads", [])

    def kind_of(name):
        return type(logging.getLogger(name)).__name__, hasattr(logging.getLogger(name), "shout")

    found = ("Local", True) if kind == "Local" else ("Logger", False)
    assert [found] == run_parallel(kind_of, ["local_class"], executor="processes").values()
    assert {threading.current_thread()} == {*Told.threads}  # it may hang there, and the supervisor's must not


UNUSUAL_CLASSES = """
import logging
import logging.handlers

class Slotted(logging.Logger):
    __slots__ = ("told",)

class Named(logging.Logger):
    def __init__(self, name, team):
        super().__init__(name)
        self.team = team

class Choosy(logging.Logger):
    tries = 0

    def __init__(self, name):
        Choosy.tries += 1
        raise ValueError(name)
"""


def test_a_logger_that_cannot_take_over_its_class_is_of_the_usual_one(tmp_path, monkeypatch, caplog):
    """Asking for it failed in every worker: its instances are laid out otherwise, or made with more than a name. That is tried once."""
    (tmp_path / "unusual_log.py").write_text(UNUSUAL_CLASSES)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("unusual_log")
    made = {"slotted_log": module.Slotted("slotted_log"), "named_log": module.Named("named_log", "red")}
    made["choosy_log"] = module.Choosy.__new__(module.Choosy)
    logging.Logger.__init__(made["choosy_log"], "choosy_log")
    for name, logger in made.items():
        logger.parent = logging.root
        logger.setLevel(logging.DEBUG)
        monkeypatch.setitem(logging.root.manager.loggerDict, name, logger)

    def say(name):
        logger = logging.getLogger(name)
        logging.getLogger(name).debug(name)
        return type(logger).__name__, logger.level, sys.modules["unusual_log"].Choosy.tries

    results = run_parallel(say, [*made], executor="processes", max_workers=1)
    del sys.modules["unusual_log"]
    assert [("Logger", logging.DEBUG, tries) for tries in (0, 0, 1)] == results.values()
    assert [*made] == [record.getMessage() for record in caplog.records]


class Forwarding(logging.Handler):
    """One with a ``target``, as many have, which leads back to it."""

    def __init__(self):
        super().__init__()
        self.target = self

    def emit(self, record):
        pass


def test_runs_go_on_beside_unusual_loggers_and_handlers(monkeypatch):
    """Neither a mock among the loggers nor a handler whose attributes lead in a circle keeps workers from starting."""
    monkeypatch.setitem(logging.root.manager.loggerDict, "mocked", mock.Mock(level=10))
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers, Forwarding()])
    assert [1] == run_parallel(abs, [-1], executor="processes").values()


def test_the_import_of_a_module_does_not_set_back_what_the_program_has_set(legacy):
    """Many modules set a level as they are imported, such as optuna's; a task may change it."""
    module = importlib.import_module("legacy_log")  # which sets INFO
    module.logger.setLevel("ERROR")

    def levels(level):
        before = module.logger.level
        module.logger.setLevel(level)
        return before, module.logger.level

    results = run_parallel(levels, [logging.DEBUG], executor="processes", max_workers=1)
    assert [(logging.ERROR, logging.DEBUG)] == results.values()


@pytest.mark.all
@pytest.mark.parametrize("propagate", [True, False])
def test_an_initializer_that_configures_logging_as_the_program_does_takes_no_record_from_it(
    legacy, propagate
):
    """If both call ``dictConfig``, the program writes what tasks log, also of a logger that passes nothing to the root."""
    module = importlib.import_module("legacy_log")
    module.configure(legacy / "log", propagate)
    initializer = {"initializer": module.configure, "initargs": (legacy / "log", propagate)}
    with ProcessExecutor(1, **initializer) as executor:
        run_parallel(module.say, ["a", "b"], executor=executor).raise_failures()
    assert ["a 0", "b 1"] == (legacy / "log").read_text().splitlines()


@pytest.mark.all
def test_a_module_that_only_tasks_import_may_set_the_level_of_the_root(legacy):
    """Nobody has set that in the program, where it would do the same."""
    (legacy / "late_log.py").write_text("import logging\nlogging.root.setLevel(15)\n")

    def level(_):
        importlib.import_module("late_log")
        return logging.root.level

    assert [15] == run_parallel(level, [0], executor="processes").values()


@pytest.mark.all
def test_a_logger_that_passes_nothing_on_has_its_records_from_workers(legacy):
    """If a module turns propagation off as it is imported, a handler that the program attaches later gets what tasks log."""
    with (legacy / "legacy_log.py").open("a") as module:
        module.write("logger.propagate = False\n")
    module = importlib.import_module("legacy_log")
    module.write_to(legacy / "log")
    run_parallel(module.say, ["a", "b"], executor="processes", max_workers=1).raise_failures()
    assert ["legacy_log a 0", "legacy_log b 1"] == (legacy / "log").read_text().splitlines()


@pytest.mark.all
def test_a_handler_with_a_file_of_the_workers_own_writes_to_it(legacy):
    """A handler that an initializer attaches, with a file to which the program does not write, gets the records, too."""
    module = importlib.import_module("legacy_log")
    module.write_to(legacy / "log")
    files = str(legacy / "log"), legacy / "own"
    with ProcessExecutor(1, initializer=module.write_to, initargs=files) as executor:
        run_parallel(module.say, ["a"], executor=executor).raise_failures()
    assert "legacy_log a 0\n" == (legacy / "log").read_text()
    assert "legacy_log a of a worker\n" == (legacy / "own").read_text()


@pytest.mark.all
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_a_module_shows_is_shown_once(legacy, capfd, stream):
    """If a module attaches a standard stream as it is imported, each record of a task is shown once."""
    with (legacy / "legacy_log.py").open("a") as module:
        module.write(f"import sys\nlogger.addHandler(logging.StreamHandler(sys.{stream}))\n")
    say = importlib.import_module("legacy_log").say
    run_parallel(say, ["a"], executor="processes", max_workers=1).raise_failures()
    assert "a\n" == "".join(capfd.readouterr())


@pytest.mark.all
def test_a_handler_that_writes_elsewhere_gets_the_records_of_its_own_process(legacy):
    """If a module attaches a handler of another kind as it is imported, a worker has one, too, which a task may ask."""
    with (legacy / "legacy_log.py").open("a") as module:
        module.write("said = []\nclass Keep(logging.Handler):\n")
        module.write("    def emit(self, record):\n        said.append(record.getMessage())\n")
        module.write("logger.addHandler(Keep())\ndef say_and_look(item):\n    say(item)\n    return said\n")
    module = importlib.import_module("legacy_log")
    found = run_parallel(module.say_and_look, ["a"], executor="processes", max_workers=1).values()
    assert [["a"]] == found == [module.said]


def test_what_a_handler_writes_to_is_known_where_others_have_it_too(tmp_path):
    """A file or a standard stream is, also one behind a handler that collects records; not what is in this process alone."""
    out, err = io.StringIO(), io.StringIO()
    file = logging.FileHandler(tmp_path / "log", delay=True)
    streams = map(logging.StreamHandler, (out, err, io.StringIO()))
    collecting = (logging.handlers.MemoryHandler(1, target=each) for each in (file, None))
    path = file.baseFilename
    found = [target(each, out, err) for each in (file, *streams, *collecting, logging.Handler())]
    assert [path, "<stdout>", "<stderr>", None, path, None, None] == found
    assert target(logging.Handler(), None, None) is None, "there are no standard streams"


@pytest.mark.all
@pytest.mark.parametrize("queue", ["queue.SimpleQueue()", "queue.Queue()", "multiprocessing.SimpleQueue()"])
def test_a_queue_that_a_thread_of_a_worker_would_empty_gets_no_record(legacy, queue):
    """If a module attaches a queue as it is imported, that of the program gets all that tasks log: a worker is killed."""
    with (legacy / "legacy_log.py").open("a") as module:
        module.write("import multiprocessing\n")
        module.write(f"records = {queue}\n")
        module.write("class Handler(logging.handlers.QueueHandler):\n")
        module.write("    def enqueue(self, record):\n        self.queue.put(record)\n")
        module.write("logger.addHandler(Handler(records))\n")
        module.write("def say_and_look(item):\n    logger.info(item)\n    return records.empty()\n")
    module = importlib.import_module("legacy_log")
    found = run_parallel(module.say_and_look, ["a", "b"], executor="processes", max_workers=1).values()
    assert [True, True] == found
    assert ["a", "b"] == [module.records.get().message for _ in found]


def log_to_a_file_as_stdout(path):
    sys.stdout = path.open("w", buffering=1)
    logging.getLogger("legacy_log").addHandler(logging.StreamHandler(sys.stdout))


@pytest.mark.all
def test_a_file_that_an_initializer_puts_in_place_of_stdout_gets_what_is_logged_to_it(legacy):
    """It is not the program's stdout, although the program logs to that."""
    module = importlib.import_module("legacy_log")
    module.logger.addHandler(logging.StreamHandler(sys.stdout))
    with ProcessExecutor(1, initializer=log_to_a_file_as_stdout, initargs=[legacy / "own"]) as executor:
        run_parallel(module.say, ["a"], executor=executor).raise_failures()
    assert "a\n" == (legacy / "own").read_text()


@pytest.mark.all
@pytest.mark.parametrize("mode", ["w", "x"])
def test_no_worker_empties_the_file_that_the_program_logs_to(legacy, mode):
    """If a module makes a handler that begins a new file as it is imported, the program's stays, and the module can be imported. Others are begun anew."""
    (legacy / "other").write_text("old")
    with (legacy / "legacy_log.py").open("a") as module:
        module.write(f"logger.addHandler(logging.FileHandler({str(legacy / 'log')!r}, mode={mode!r}))\n")
        module.write(
            f"def begin(item):\n    logging.FileHandler({str(legacy / 'other')!r}, 'w').close()\n    say(item)\n"
        )
    module = importlib.import_module("legacy_log")
    module.say("before")
    run_parallel(module.begin, ["a"], executor="processes", max_workers=1).raise_failures()
    assert "" == (legacy / "other").read_text()
    assert ["before", "a"] == (legacy / "log").read_text().splitlines()


@pytest.mark.all
def test_a_handler_that_collects_records_for_a_file_writes_each_once(legacy):
    """If a module attaches a MemoryHandler as it is imported, the worker's neither writes records when it is full nor loses them."""
    with (legacy / "legacy_log.py").open("a") as module:
        module.write(f"file = logging.FileHandler({str(legacy / 'log')!r})\n")
        module.write("collecting = logging.handlers.MemoryHandler(2, target=file)\n")
        module.write("logger.addHandler(collecting)\n")
    module = importlib.import_module("legacy_log")
    run_parallel(module.say, ["a", "b", "c"], executor="processes", max_workers=1).raise_failures()
    module.collecting.close()
    module.file.close()
    assert ["a", "b", "c"] == (legacy / "log").read_text().splitlines()
