"""Objects that a module has once, and looks for with ``is``: a task of a script has those of its own process."""

import dataclasses
import sys
import types

import cloudpickle
import pytest

from parallelkit import run_parallel
from parallelkit._worker._travel import pack, unpack

MODULE = """
class UNSIGNED: pass
UNSIGNED = UNSIGNED()
class Missing:
    def __bool__(self): return False
missing, gone = Missing(), Missing()
del gone
"""


@pytest.fixture
def module(monkeypatch):
    """A module with tokens, one of which has the name of its class, as that of botocore does."""
    made = types.ModuleType("with_tokens")
    exec(MODULE, vars(made))
    monkeypatch.setitem(sys.modules, "with_tokens", made)
    return made


def of_script(source, **scope):
    """A function ``used`` of a script."""
    scope |= {"__name__": "__main__"}
    exec(source, scope)
    return scope["used"]


def test_a_worker_has_its_own():
    """As if it had imported it, which a worker of a standard pool does."""

    def used(item, other=dataclasses.KW_ONLY):
        return token is dataclasses.KW_ONLY is other

    from dataclasses import KW_ONLY as token  # noqa: N811  # a script may call it anything

    assert [True] == run_parallel(used, [1], executor="processes", max_workers=1).values()


def test_tokens_are_sent_by_name(module):
    """A function's global, whatever it is called there, and the same one in what else the function has."""
    source = "def used(other=token, more=[token, missing]): return token, other, *more, missing"
    there = unpack(pack(of_script(source, token=module.UNSIGNED, missing=module.missing)))()
    assert all(one is module.UNSIGNED for one in there[:3])
    assert all(one is module.missing for one in there[3:])
    captured = of_script(
        "def outer(token):\n def used(): return token\n return used\nused = outer(token)",
        token=module.UNSIGNED,
    )
    assert unpack(pack(captured))() is module.UNSIGNED


def test_what_its_module_does_not_have_is_no_token(module):
    """Another object of the class is sent by value, before and after there was a token of that class."""
    other = type(module.missing)()
    for name in ("other", "missing", "other"):
        sent = of_script(f"def used(): return {name}", other=other, missing=module.missing)
        assert (name == "missing") == (unpack(pack(sent))() is module.missing)


@pytest.mark.parametrize(
    "body",
    [
        "def __init__(self): self.size = 1",
        "__slots__ = ['size']\n def __init__(self): self.size = 1",
        "def __eq__(self, other): return type(self) is type(other)",
        "def __reduce__(self): return type(self), ()",
        "def __reduce_ex__(self, protocol): return type(self), ()",
        "def __getstate__(self): return None",
        "def __getnewargs__(self): return ()\n def __init__(self): self.size = 1",
    ],
)
def test_what_has_state_or_a_way_of_its_own_is_no_token(module, body):
    """It is sent as it is now, or as it says, not as the worker finds it."""
    exec(f"class Setting:\n {body}\nsetting = Setting()", vars(module))
    there = unpack(pack(of_script("def used(): return setting", setting=module.setting)))()
    assert type(there) is module.Setting
    assert there is not module.setting


def test_what_refuses_to_be_pickled_is_no_token(module):
    """The error is that of pickling it."""
    exec(
        "class Refuses:\n def __getattribute__(self, name): raise OSError(5, 'no')\nit = Refuses()",
        vars(module),
    )
    with pytest.raises(OSError, match="no"):
        pack(of_script("def used(): return it", it=module.it))


def test_a_script_has_its_own_tokens():
    """Its classes are not in any module that a worker has; what one function refers to twice is one object there, too."""
    source = "class Missing: pass\nmissing = Missing()\ndef used(other=missing): return missing is other"
    assert unpack(pack(of_script(source)))()


def test_a_module_that_is_sent_by_value_has_none(module):
    """``cloudpickle.register_pickle_by_value``: no worker has it. Nor does one have what says that it is of no module."""
    sent = of_script("def used(): return missing", missing=module.missing)
    cloudpickle.register_pickle_by_value(module)
    try:
        assert unpack(pack(sent))() is not module.missing
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    type(module.missing).__module__ = 7
    assert unpack(pack(sent))() is not module.missing
