"""The contract of the executors, as it is tested for worker processes, on a dask cluster."""

from types import FunctionType

import pytest
import test_executors
from clusters import opened
from grounds import Ground, Hold, Processes
from patience import wait_until

from parallelkit._executors._dask import DaskEngine

pytestmark = pytest.mark.all


class OnDask(Ground):
    """Two workers of one thread each."""

    kills = True
    client = None  # of the cluster that all tests share

    def __init__(self, folder):
        self.ports = []
        self.begun = set()
        super().__init__(folder)

    def make_engine(self):
        return DaskEngine(self.client, None)

    def open(self, **job):
        self.ports.append(super().open(**job))
        return self.ports[-1]

    def hold(self):
        hold = super().hold()
        hold.wait_until_begun = lambda: self.wait_until_told(hold)
        hold.let_go = lambda: self.let_go(hold)
        return hold

    def wait_until_told(self, hold):
        """A start is told to the client some milliseconds later."""
        Hold.wait_until_begun(hold)
        self.begun.add(hold)
        wait_until(lambda: len(self.begun) <= sum(len(port.running()) for port in self.ports))

    def let_go(self, hold):
        self.begun.discard(hold)
        Hold.let_go(hold)


@pytest.fixture(scope="module", autouse=True)
def _cluster(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("dask")) as (_, OnDask.client):
        yield


@pytest.fixture
def ground(tmp_path):
    ground = OnDask(tmp_path)
    yield ground
    ground.close()


port = test_executors.port


def adopted(test):
    """The test without its list of grounds, or None where it is not for worker processes."""
    marks = getattr(test, "pytestmark", [])
    grounds = next((mark.args[1] for mark in marks if mark.args[:1] == ("ground",)), [])
    if Processes not in grounds:
        return None
    copy = FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)
    copy.__doc__ = test.__doc__
    copy.pytestmark = [mark for mark in marks if mark.args[:1] != ("ground",)]
    return copy


for _name, _test in vars(test_executors).items():
    if _name.startswith("test_") and (_copy := adopted(_test)):
        globals()[_name] = _copy
