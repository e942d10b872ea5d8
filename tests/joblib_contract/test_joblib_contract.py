"""The backend under joblib's own tests, which its wheel ships under ``joblib/test``, for `make test-all`.

Nothing of joblib is copied here: its modules of tests are read where they are installed, and run with our
backend in the place of loky's.
"""

import importlib.util
import re
import sys
import types
from multiprocessing import forkserver
from pathlib import Path

import pytest

pytest.importorskip("joblib.test.test_parallel", reason="this joblib was installed without its tests")

import joblib.parallel
from joblib.externals.loky.backend import resource_tracker

from parallelkit.joblib_backend import Crew, backend_class, register

pytestmark = [
    pytest.mark.all,
    pytest.mark.filterwarnings("default"),  # that joblib warns of what these tests do is no failure
]

KINDER = (
    "nothing has to be refused: our workers may have processes of their own, and are started from any thread"
)
ELSEWHERE = (
    "there is no pool behind the caller's back: workers end with their Parallel, or their parallel_config"
)
NO_MEMMAP = "large arrays go by shared memory, and are arrays in the worker; nothing is written to a folder"
NO_CONFLICT = (
    "a call of the same Parallel after one that was dropped works; loky's shared executor refuses it"
)
NOT_TOLD = "a worker of another backend does not know the names registered here"
OTHERS = "of the private parts of loky"
NO_SITE = "started in a worker, loky's resource tracker does not find joblib: its interpreter gets the worker's own -S"

LEFT_OUT = {
    "test_nested_parallel_warnings": KINDER,
    "test_nested_loop[loky-parallelkit]": NOT_TOLD,
    "test_nested_loop[back_compat_backend-parallelkit]": NOT_TOLD,
    "test_nested_loop[parallelkit-loky]": NO_SITE,
    "test_nested_loop[parallelkit-multiprocessing]": NO_SITE,
    "test_nested_loop[parallelkit-back_compat_backend]": NO_SITE,
    "test_parallel_with_interactively_defined_bound_method_loky": OTHERS,
    "test_auto_memmap_on_arrays_from_generator": NO_MEMMAP,
    "test_memmapping_leaks": NO_MEMMAP,
    "test_multiple_generator_call_separated_gc": NO_CONFLICT,
    "test_initializer_reused": ELSEWHERE,
    "test_loky_reuse_workers": OTHERS,
}
"""A test, or one of its cases, and why it does not hold of our backend."""
if sys.version_info >= (3, 14):
    # multiprocessing's workers are no longer forks, and its semaphores have names.
    LEFT_OUT["test_nested_loop[multiprocessing-parallelkit]"] = NOT_TOLD
    LEFT_OUT["test_nested_exception_dispatch"] = NO_SITE

FROM_LOKY_TO_OURS = {
    r"\"loky\"|'loky'": '"parallelkit"',
    r'PROCESS_BACKENDS = \["multiprocessing", "parallelkit"\]': 'PROCESS_BACKENDS = ["parallelkit"]',
    r"(?m)^    LokyBackend,\n": "",
    # In scripts that are run by themselves: the package must be told.
    r"(?m)^from joblib import (Parallel.*)$": (
        r"from joblib import \1; from parallelkit.joblib_backend import register; register()"
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _fork_server():
    """Start it now, as it stays until the program ends."""
    if sys.version_info >= (3, 14):
        forkserver.ensure_running()


def load(name):
    """A module of joblib's tests with our backend in the place of loky's, in the place of the module itself."""
    spec = importlib.util.find_spec(name)
    source = Path(spec.origin).read_text(encoding="utf-8")
    for theirs, ours in FROM_LOKY_TO_OURS.items():
        source = re.sub(theirs, ours, source)
    module = types.ModuleType(name)
    module.__file__, module.__package__ = spec.origin, spec.parent
    module.LokyBackend = backend_class()
    sys.modules[name] = module
    exec(compile(source, spec.origin, "exec"), vars(module))
    return module


resource_tracker.ensure_running()  # joblib's own process, which stays for the life of the program
register()
theirs = load("joblib.test.test_parallel")
globals().update((name, test) for name, test in vars(theirs).items() if name.startswith("test_"))


@pytest.fixture(autouse=True)
def _by_default(monkeypatch):
    """Where a test names no backend it means loky's."""
    monkeypatch.setattr(joblib.parallel, "DEFAULT_BACKEND", "parallelkit")
    monkeypatch.setattr(joblib.parallel, "DEFAULT_PROCESS_BACKEND", "parallelkit")


@pytest.fixture(autouse=True)
def _no_warm_workers(request):
    """A backend object keeps its workers warm; those that joblib makes for all its tests live as long as these."""
    yield
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    for value in params.values():
        if isinstance(value, backend_class()):
            value._crew = Crew()


def test_what_is_left_out_exists():
    """No exception outlives its test."""
    assert [] == [name for name in LEFT_OUT if not hasattr(theirs, name.partition("[")[0])]
