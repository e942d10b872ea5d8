"""Rules that keep the package readable as it grows: import order, public names, and lengths."""

import ast
import dataclasses
import subprocess
import sys
import typing
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "parallelkit"

# A module imports only from lines below its own. Modules on the same line do not import each other.
LAYERS = """
_demo/count_tokens
__init__  __main__
_cli  http  joblib_backend  testing
_command/_run
_command/_doctor  _command/_lines  _command/_sink  _command/_stream_ledger  _command/_tally  _command/_target
_command/_arguments  _command/_parser
_command/__init__
_joblib/_batches
_joblib/_packing
_joblib/_worker
_demo/__init__
_demo/_research  _demo/_tokens
_demo/_claims  _demo/_sources
_recipes
_run  _fold
_calls  _runs/_collected  _runs/_streamed
_runs/_plan
_form
_runs/_endings  _options  _rebuilt  _runs/_stream
_input/_growth  _runs/_queues
_loop
_events
_executors/_futures
_executors/_submit/_dispatcher
_executors/_submit/_opening  _executors/_submit/_settling
_executors/_submit/_exit
_journal/_recorder
_journal/_payload
_executors/_choice  _runs/_interruptible  _checkpoint  _progress  _unrecorded
_journal/_writer
_journal/_file
_journal/_lock
_executors/_coroutines
_executors/_coroutine/_port
_executors/_coroutine/_overdue
_executors/_dask
_executors/_cluster/_client_run  _executors/_cluster/_compatibility
_executors/_cluster/_guard  _executors/_cluster/_clock  _executors/_cluster/_broker  _executors/_cluster/_scatter
_executors/_cluster/_worker_run
_executors/_cluster/_wire  _executors/_cluster/_pending  _executors/_cluster/_in_flight  _executors/_cluster/_sizes
_executors/_threads _executors/_processes _executors/_inline _executors/_foreign _results _scheduler
_book  _scheduling/_delayed  _scheduling/_fifo  _scheduling/_ready  _scheduling/_stopping  _scheduling/_tries  _scheduling/_unawaited  _scheduling/_unsettled
_scheduling/_limiters  _executors/_foreign_calls
_input/_recall
_executors/_thread/_registry  _executors/_thread/_slots  _executors/_thread/_starts
_executors/_coroutine/_event_loop  _executors/_thread/_worker
_executors/_thread/_port
_report/_text  _report/_html  _report/_trace  _report/_card
_report/_advice
_report/_slow  _report/_coroutines  _report/_width  _report/_wasted
_report/_words  _report/_lanes  _report/_estimates
_report/_failures  _report/_summary
_report/_format  _report/_rows
_report/__init__
_executors/_process/_stacks
_executors/_process/_supervisor  _executors/_process/_sharing
_executors/_process/_worker_pool  _executors/_process/_setup  _executors/_process/_poller  _executors/_process/_starter
_executors/_process/_roster
_executors/_process/_endings
_executors/_process/_deaths
_executors/_process/_handle  _executors/_process/_prestart
_executors/_process/_taught  _executors/_process/_actor
_executors/_process/_startable
_executors/_process/_wire  _executors/_process/_decode  _executors/_process/_records  _executors/_process/_zygote  _executors/_process/_holding  _executors/_process/_killable  _executors/_process/_packing
_executors/_process/_spawn
_executors/_process/_lane
_executors/_process/_pace  _executors/_tickets  _executors/_process/_reloads
_executors/_process/_carried  _executors/_process/_search_path
_executors/_process/_payload
_executors/_process/_definitions  _executors/_process/_arrivals  _executors/_process/_blocks  _executors/_process/_at_import  _executors/_contexts
_executors/_process/_preload  _executors/_gate  _executors/_width  _executors/_submit/_future  _executors/_submit/_refusals  _executors/_thread/_stacks  _executors/_process/_crash_stack  _executors/_thread/_lending  _executors/_thread/_queue  _executors/_thread/_loss  _executors/_thread/_overdue  _executors/_submit/_chunks  _executors/_process/_culprit  _executors/_process/_validation  _executors/_process/_words  _executors/_process/_killing  _executors/_process/_reserve
_executors/_process/_generators
_executors/_process/_captures  _executors/_greenlets  _executors/_shared
_executors/_contract
_executors/__init__  _executors/*/__init__
_input/_source
_input/_intake
_input/_naming  _input/_portion
_input/_shape
_input/_prefetch  _input/_keys  _keyed  _http/_urls
_tasks
_limits
_retry  _scheduling/_meters
_policies  _scheduling/_retry_after  _http/_fetcher
_ledger  _http/_sent
_lost  _journal/_identity
_outcomes
_worker/__main__
_worker/_zygote
_worker/_serve  _worker/_chunk
_worker/_jobs  _worker/_slots  _worker/_logs
_worker/_call_functions  _worker/_faults  _worker/_surroundings  _worker/_buffers  _worker/_editions  _worker/_result_classes  _worker/_initial
_worker/_forms  _worker/_parts  _worker/_loggers  _worker/_arrival
_worker/_travel  _worker/_outbox  _worker/_tracebacks  _worker/_numpy_numbers
_worker/_classes
_worker/_annotations
_worker/_needed  _worker/_built  _worker/_tokens  _worker/_virtual
_worker/_type_names  _worker/_by_value  _worker/_importing
_worker/_functions  _worker/_caches  _worker/_elsewhere
_worker/_channel  _worker/_enums  _worker/_leases  _worker/_dicts  _worker/_memmaps  _worker/_lifeline  _worker/_out_of_memory  _worker/_call  _worker/_script  _worker/_connections  _worker/_global_generators  _worker/_by_name  _worker/_finder
_worker/_kernel  _worker/_storages
_worker/__init__
_cancelled  _died  _coroutine_functions  _world
_errors  _logger  _error_text
_http/__init__  _input/__init__  _joblib/__init__  _journal/__init__  _runs/__init__  _scheduling/__init__
_collector  _facts  _forked  _interrupt  _keywords  _named_tuple  _numbers  _public  _marks  _raised  _star  _system
_conditions
_locks
"""

EXPORTED = """
run_parallel iter_parallel map_reduce first_success Task
Results Success Failure Outcome Attempt
Retry RateLimit ConcurrencyLimit Checkpoint Event
ThreadExecutor ProcessExecutor
ParallelKitError TaskTimeout WorkerDied TaskCancelled TaskExited RemoteError InputError TaskFailures RunInterrupted
"""

# Imported only where they are first needed, so that `import parallelkit` stays cheap.
HEAVY = {
    "asyncio",
    "cloudpickle",
    "dask",
    "distributed",
    "joblib",
    "multiprocessing",
    "numpy",
    "requests",
    "sqlite3",
    "tqdm",
}


def name_of(path: Path) -> str:
    """A module's name in the table: its path in the package, without the suffix."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
every_module = pytest.mark.parametrize("name", MODULES)


@cache
def layer_of(name: str) -> int | None:
    """The number of the module's line in the table; None if it has none."""
    lines = enumerate(LAYERS.split("\n"))
    return next((number for number, line in lines for entry in line.split() if fnmatch(name, entry)), None)


def imports_of(name: str, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The full dotted name of everything that these nodes of a module import."""
    package = ["parallelkit", *name.split("/")[:-1]]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            yield from (".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names)


def module_named(dotted: str) -> str | None:
    """The module of the package that a dotted name names, or that contains what it names."""
    parts = dotted.split(".")[1:]
    for end in range(len(parts), -1, -1):
        for name in ("/".join(parts[:end]), "/".join([*parts[:end], "__init__"])):
            if name in MODULES:
                return name
    return None


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: not function bodies, nor ``if TYPE_CHECKING`` blocks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from at_import(node)


@every_module
def test_imports_point_downwards(name):
    """Every module is in the table and imports only from lines below its own, so there are no cycles."""
    own = layer_of(name)
    assert own is not None, f"{name} has no line in the table of layers"

    imported = {module_named(dotted) for dotted in imports_of(name, ast.walk(TREES[name])) if is_own(dotted)}
    wrong = {other for other in imported - {name} if (layer_of(other) or 0) <= own}

    assert not wrong or name in ("__init__", "__main__"), (
        f"{name} imports from beside or above: {sorted(wrong)}"
    )


def is_own(dotted: str) -> bool:
    return dotted.partition(".")[0] == "parallelkit"


@every_module
def test_heavy_imports_are_late(name):
    """No module imports a heavy package when it is itself imported."""
    imported = {dotted.partition(".")[0] for dotted in imports_of(name, at_import(TREES[name]))}
    # The modules of _cluster are used only with dask, which has imported asyncio.
    loaded = {"asyncio"} if fnmatch(name, "_executors/_cluster/*") else set()
    assert not imported.intersection(HEAVY - loaded)


@pytest.mark.parametrize(
    ("name", "needless"),
    [
        ("parallelkit", {"concurrent.futures.process"}),
        ("parallelkit._executors._processes", {"concurrent.futures.process", "datetime", "decimal"}),
    ],
)
def test_import_is_light(name, needless):
    """In a fresh interpreter, neither the package nor what a run in processes needs loads a heavy package, or a needless one."""
    code = f"import sys, {name}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not (HEAVY | needless).intersection(loaded)


def test_public_names_are_the_promised_ones():
    """Only the names of the design are exported; `__all__` is sorted, and each of its names exists."""
    import parallelkit

    assert set(parallelkit.__all__) <= set(EXPORTED.split())
    assert sorted(parallelkit.__all__) == list(parallelkit.__all__)
    for name in parallelkit.__all__:
        assert getattr(parallelkit, name).__name__ == name or name == "Outcome"


def test_types_of_fields_can_be_evaluated():
    """Libraries such as pydantic and cattrs can use the public dataclasses: their annotations name nothing that the package lacks."""
    import parallelkit

    public = [getattr(parallelkit, name) for name in parallelkit.__all__]
    kinds = [kind for kind in public if dataclasses.is_dataclass(kind)]
    assert {"Attempt", "Checkpoint", "Event", "Failure", "Retry", "Success"} == {
        kind.__name__ for kind in kinds
    }
    for kind in kinds:
        assert set(kind.__match_args__) <= set(typing.get_type_hints(kind))
        assert not [field.name for field in dataclasses.fields(kind) if isinstance(field.type, str)]


@every_module
def test_files_and_functions_are_short(name):
    """No file is longer than 300 lines, and no function longer than 40 without its docstring."""
    assert MODULES[name].read_text(encoding="utf-8").count("\n") <= 300

    functions = (
        node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = {f"{function.name}, line {function.lineno}": length_of(function) for function in functions}
    assert not {function: length for function, length in lengths.items() if length > 40}


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/**/test_*.py")), ids=lambda path: path.name)
def test_every_test_states_its_property(path):
    """Each test has a docstring that says which behaviour it checks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert not [test.name for test in tests if not ast.get_docstring(test)]
