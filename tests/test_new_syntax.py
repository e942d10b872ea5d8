"""Scripts in the syntax of Python 3.14 and 3.15, whose functions and classes are sent to worker processes."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.all, pytest.mark.skipif(sys.version_info < (3, 14), reason="its syntax is newer")]
since_15 = pytest.mark.skipif(sys.version_info < (3, 15), reason="its syntax is newer")


def printed(folder, source):
    """What a script prints."""
    script = folder / "script.py"
    script.write_text("from parallelkit import run_parallel\n" + textwrap.dedent(source))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, cwd=folder, check=False
    )
    assert "" == done.stderr
    return done.stdout.splitlines()


def test_an_annotation_may_name_what_is_not_there(tmp_path):
    """A function or method annotated with what only type checkers know can be sent; there its annotations are text."""
    source = """
        class Box:
            def get(self, item: Missing): return item
        def work(item: Missing): return Box().get(item), work.__annotations__
        print(run_parallel(work, [1], executor="processes")[0])
    """
    assert ["(1, {'item': 'Missing'})"] == printed(tmp_path, source)


def test_a_checkpoint_records_what_is_annotated_with_what_is_not_there(tmp_path):
    """A local class, and a function, as they come back from processes: the next run recalls them."""
    source = """
        def make(item):
            class Box:
                held: Missing
                def get(self, more: Missing): return item + more
            return Box().get, Box.get
        for _ in range(2):
            results = run_parallel(make, [1], executor="threads", key=str, checkpoint="run.journal")
            method, function = results["1"]
            print(results.outcomes["1"].worker == "checkpoint", method(1), function(None, 2))
    """
    assert ["False 2 3", "True 2 3"] == printed(tmp_path, source)


def test_a_dataclass_that_names_itself_does_not_take_the_script_along(tmp_path):
    """Nor does one that names a later class: what else the script has need not be picklable."""
    source = """
        from dataclasses import dataclass
        from threading import Lock
        @dataclass
        class Node:
            value: int
            below: list[Node] | None = None
            other: Later | None = None
        class Later: ...
        lock = Lock()
        print(run_parallel(lambda item: Node(item, [Node(2)]), [1], executor="processes")[0])
    """
    expected = "Node(value=1, below=[Node(value=2, below=None, other=None)], other=None)"
    assert [expected] == printed(tmp_path, source)


def test_a_reference_keeps_what_it_says_of_its_place(tmp_path):
    """The module in which its name is looked up, and whether it stands in a class."""
    source = """
        from annotationlib import ForwardRef
        reference = ForwardRef("OrderedDict", module="collections", is_class=True)
        def work(_): return reference.evaluate().__name__, reference.__forward_is_class__
        print(run_parallel(work, [1], executor="processes")[0])
    """
    assert ["('OrderedDict', True)"] == printed(tmp_path, source)


def test_classes_keep_their_annotations(tmp_path):
    """What reads the annotations of a script's class finds them in a worker, too."""
    source = """
        from typing import NamedTuple, TypedDict, get_type_hints
        class Plain:
            a: int
        class Row(NamedTuple):
            a: int
        class Options(TypedDict):
            a: int
        def work(_): return [get_type_hints(cls) for cls in (Plain, Row, Options)]
        print(run_parallel(work, [1], executor="processes")[0] == [{"a": int}] * 3)
    """
    assert ["True"] == printed(tmp_path, source)


@since_15
def test_a_sentinel_stays_itself(tmp_path):
    """A script's sentinel is itself in workers and when it comes back, and no other one."""
    source = """
        A, B = sentinel("A"), sentinel("B")
        def work(item):
            assert repr(item) in ["A", "B", "<C>"]
            return item, A, item is A, item is B
        results = run_parallel(work, [A, B, sentinel("C", repr="<C>")], executor="processes").values()
        print([repr(item) for item, *_ in results], [rest for *_, of_a, of_b in results for rest in (of_a, of_b)])
        print([results[0][0] is A, results[1][0] is B, results[0][1] is A])
    """
    first, second = printed(tmp_path, source)
    assert "['A', 'B', '<C>'] [True, False, False, True, False, False]" == first
    assert "[True, True, True]" == second


@since_15
def test_a_lazy_import_that_nothing_has_used_can_be_sent(tmp_path):
    """Also that of a module within a package."""
    source = """
        lazy import json
        lazy import xml.dom.minidom
        lazy from collections import Counter as Count
        def work(item): return json.dumps(item), xml.dom.minidom.__name__, Count("a")["a"]
        print(run_parallel(work, [1], executor="processes")[0])
    """
    assert ["('1', 'xml.dom.minidom', 1)"] == printed(tmp_path, source)


@since_15
def test_a_lazy_import_that_fails_is_an_error_of_the_task_that_uses_it(tmp_path):
    """As in a plain loop, whatever the import raises; a task that does not use it has its result."""
    (tmp_path / "broken.py").write_text("raise ValueError('broken')")
    (tmp_path / "pack").mkdir()
    for name, text in ("__init__", ""), ("good", ""), ("broken", "raise ValueError('broken')"):
        (tmp_path / "pack" / f"{name}.py").write_text(text)
    source = """
        lazy import no_such.part
        lazy from no_such import part as other
        lazy import os.part
        lazy import xml.dom.part as part
        lazy from json import no_name
        lazy import broken
        lazy import pack.broken
        lazy import pack.missing
        lazy import pack.good
        class Uses:
            def no_such(self, item): return item and no_such
            def other(self, item): return item and other
        def of_os(item): return item and os
        def of_default(item, get=lambda: part): return item and get()
        def of_json(item): return item and no_name
        def of_broken(item): return item and broken
        def of_pack(item): return item and pack.broken
        def of_missing(item): return item and pack.missing
        def closure(used): return lambda item: used(item)
        functions = Uses().no_such, Uses().other, of_os, of_default, of_json, of_broken, of_pack, of_missing, closure(of_os)
        for function in functions:
            found = [run_parallel(function, [0, 1], executor=executor) for executor in ("inline", "processes")]
            for results in found:
                error = results.failures[1].error
                print([results[0], type(error), str(error), repr(error.__cause__)])
    """
    lines = printed(tmp_path, source)
    assert lines[::2] == lines[1::2]
    assert 9 * 2 == len(lines)


@since_15
def test_an_alias_is_shown_by_its_name(tmp_path):
    """A type alias shows the same in a worker, also one of a class."""
    source = """
        type Pair[X] = tuple[X, X]
        class Box:
            type Inner = int
        print(run_parallel(lambda _: [repr(Pair), repr(Box.Inner)], [1], executor="processes")[0])
    """
    assert ["['Pair', 'Box.Inner']"] == printed(tmp_path, source)
