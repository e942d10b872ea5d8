"""Annotations of a script's classes that are text: what is sent is what the text means in the script."""

import subprocess
import sys
import textwrap
import threading
import typing
from types import ModuleType

import pytest

from parallelkit._worker._annotations import set_annotations
from parallelkit._worker._travel import by_value_pickler, pack

SCRIPT = """
from __future__ import annotations

import datetime
import typing
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Annotated, ClassVar, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar

T = TypeVar("T")

class Kind(Enum):
    A = "a"

class Row(NamedTuple):
    kind: Kind
    day: Optional[datetime.date] = None

class Options(TypedDict, total=False):
    row: Row
    others: list["Options"]

@dataclass
class Base(Generic[T]):
    item: T
    kind: Kind = Kind.A
    count: ClassVar[dict[str, Kind]] = {}
    _: KW_ONLY
    tags: Annotated[list[Kind], "Kind"] = field(default_factory=list)

@dataclass(slots=True, frozen=True)
class Node:
    kind: Literal["Kind"]
    left: Node | None = None
    right: Optional["Node"] = None

    class Inner:
        kind: Kind

@dataclass
class Sub(Base[int]):
    node: Node | None = None
    Kind: Kind = None
"""

NAMES = "Row", "Options", "Base", "Node", "Node.Inner", "Sub"


@pytest.fixture
def script(monkeypatch):
    """Runs text as the module ``script``, and gives its variables."""

    def run(text):
        module = ModuleType("script")
        monkeypatch.setitem(sys.modules, "script", module)
        exec(textwrap.dedent(text), vars(module))
        return module

    return run


def sent(cls, **more):
    """What is sent of a class's attributes."""
    state = dict(vars(cls)) | more
    set_annotations(cls, state, by_value_pickler())
    return state


def types(state):
    """The types of a dataclass's fields."""
    return {name: field.type for name, field in state["__dataclass_fields__"].items()}


def test_hints_are_the_same_in_workers(tmp_path):
    """``get_type_hints`` and the types of dataclass fields have in a worker what they have in the script, in a warm one as well."""
    text = """
    def hints(name):
        cls = eval(name, {"Row": Row, "Options": Options, "Base": Base, "Node": Node, "Sub": Sub})
        return {name: str(hint) for name, hint in typing.get_type_hints(cls, include_extras=True).items() if name != "_"}

    from parallelkit import ProcessExecutor, run_parallel
    with ProcessExecutor(2) as executor:
        for names in [NAMES] * 2:
            assert [hints(name) for name in names] == run_parallel(hints, names, executor=executor).values()
        node, sub = Node("Kind", Node("Kind")), Sub(1)
        assert [node, sub] == run_parallel(lambda item: item, [node, sub], executor=executor).values()
    print(hints("Node")["left"])
    """
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + f"NAMES = {NAMES}\n" + textwrap.dedent(text))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
    assert ("", "__main__.Node | None") == (done.stderr, done.stdout.strip())


def test_text_is_sent_as_what_it_means(script):
    """Annotations, and the types of dataclass fields, inherited ones too; the class itself is left as it is."""
    made = script(SCRIPT)
    state = sent(made.Sub)
    assert {"node": made.Node | None, "Kind": made.Kind} == state["__annotations__"]
    fields = {"item": made.T, "kind": made.Kind, "tags": typing.Annotated[list[made.Kind], "Kind"]}
    count = typing.ClassVar[dict[str, made.Kind]]
    assert {**fields, "count": count, "node": made.Node | None, "Kind": made.Kind} == types(state)
    assert "Node | None" == made.Sub.__annotations__["node"] == made.Sub.__dataclass_fields__["node"].type
    assert {"row": made.Row, "others": list[made.Options]} == sent(made.Options)["__annotations__"]


def test_text_within_others_is_sent_as_what_it_means(script):
    """Without the future statement, too, where it stands for a part."""
    made = script("""
        import typing
        class Proxy:
            def __getattr__(self, name): return self
        class Node:
            near: list["Node"]
            far: typing.Optional["Node"]
            other: int
            name: "str"
            odd: Proxy()
    """)
    hints = {"near": list[made.Node], "far": made.Node | None, "other": int, "name": "str"}
    assert hints | {"odd": made.Node.__annotations__["odd"]} == sent(made.Node)["__annotations__"]


def test_text_without_a_meaning_stays(script):
    """What only type checkers know stays text, and does not keep the rest from being sent as what it means."""
    made = script("""
        from __future__ import annotations
        import typing
        from dataclasses import dataclass
        if typing.TYPE_CHECKING:
            from nowhere import Missing
        @dataclass
        class Node:
            near: list[Node]
            far: dict[Missing, Node]
            size: int
    """)
    state = sent(made.Node)
    hints = {"near": list[made.Node], "far": "dict[Missing, Node]", "size": "int"}
    assert hints == state["__annotations__"] == types(state)
    del sys.modules["script"]
    assert "list[Node]" == sent(made.Node)["__annotations__"]["near"]


def test_text_stays_if_what_it_means_cannot_be_pickled(script):
    """A class may name one that cannot be sent, as if it were in a module."""
    made = script("""
        from __future__ import annotations
        from dataclasses import dataclass
        class Model:
            pass
        @dataclass
        class Job:
            owner: Model | None
            before: Job | None
    """)
    made.Model.lock, made.Model.__module__ = threading.Lock(), "__main__"
    made.Job.__module__ = "__main__"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "Model", made.Model, raising=False)
        patch.setattr(sys.modules["__main__"], "Job", made.Job, raising=False)
        state = sent(made.Job)
        assert {"owner": "Model | None", "before": "Job | None"} == state["__annotations__"] == types(state)
        assert pack(made.Job)  # it raises nothing


def test_fields_of_a_library_keep_their_text(script, monkeypatch):
    """What a base class of another module has as text is found there, and means another thing here."""
    library = ModuleType("library")
    monkeypatch.setitem(sys.modules, "library", library)
    exec(
        textwrap.dedent("""
        from __future__ import annotations
        from dataclasses import dataclass
        class Kind: pass
        @dataclass
        class Base:
            kind: Kind
    """),
        vars(library),
    )
    made = script("""
        from __future__ import annotations
        from dataclasses import dataclass
        from library import Base
        class Kind: pass
        @dataclass
        class Sub(Base):
            own: Kind
    """)
    assert {"kind": "Kind", "own": made.Kind} == types(sent(made.Sub))
