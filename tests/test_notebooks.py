"""Notebooks, executed by a real kernel: what is defined in cells, the bar, the card, the stop button."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="needs nbclient (pip install nbclient)")
pytest.importorskip("ipykernel", reason="needs a kernel (pip install ipykernel)")

pytestmark = [pytest.mark.all, pytest.mark.slow]

HERE = Path(__file__).parent
DRIVER = HERE / "notebook_driver.py"
TUTORIAL = HERE.parent / "docs" / "notebook.ipynb"
LIMIT = 55


def execute(*cells, cwd=HERE):
    """The outputs of each cell, and the state of all widgets."""
    done = subprocess.run(
        [sys.executable, DRIVER], input=json.dumps(cells), capture_output=True, text=True, timeout=LIMIT, cwd=cwd,
        check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)
    return found["outputs"], found["widgets"]


def printed(outputs):
    """What a cell has written to stdout; an error, if there is one."""
    return "".join(
        output["text"] if output["output_type"] == "stream" else f"{output['ename']}: {output['evalue']}"
        for output in outputs
        if output["output_type"] == "error" or output.get("name") == "stdout"
    )


def test_what_is_defined_in_cells_works_in_processes():
    """Functions, closures and classes of cells; a cell that is changed and run again is what counts, also in warm workers."""
    outputs, _ = execute(
        """
        import dataclasses
        from parallelkit import ProcessExecutor, iter_parallel, run_parallel
        FACTOR = 10

        @dataclasses.dataclass
        class Point:
            x: int

        class Mistake(Exception):
            pass

        def moved(point):
            if point.x == 3:
                raise Mistake("no further")
            return Point(point.x * FACTOR)

        warm = ProcessExecutor(2)
        """.replace("\n        ", "\n"),
        "points = [Point(1), Point(2), Point(3)]\n"
        "results = run_parallel(moved, points, executor=warm)\n"
        "print(results.values(default=None), type(results[0]) is Point, type(results.failures[2].error) is Mistake)",
        "FACTOR = 100\ndef moved(point): return Point(-point.x * FACTOR)",
        "print(run_parallel(moved, points, executor=warm).values())",
        "print(sorted(outcome.value for outcome in iter_parallel(lambda n: n * FACTOR, [1, 2], executor='processes')))",
        "warm.shutdown()",
    )
    assert "[Point(x=10), Point(x=20), None] True True\n" == printed(outputs[1])
    assert "[Point(x=-100), Point(x=-200), Point(x=-300)]\n" == printed(outputs[3])
    assert "[100, 200]\n" == printed(outputs[4])
    assert [] == outputs[5]


def test_what_autoreload_has_loaded_anew_is_what_workers_run_that_stay(tmp_path):
    """A module that is edited between two cells."""
    write = "open('edited.py', 'w').write('def version(item):\\n    return {}')"
    outputs, _ = execute(
        write.format(1),
        "%load_ext autoreload\n%autoreload 2\n"
        "import edited\nfrom parallelkit import ProcessExecutor, run_parallel\nwarm = ProcessExecutor(2)\n"
        "print(run_parallel(edited.version, [0, 1], executor=warm).values())",
        write.format(22),
        "print(edited.version(0), run_parallel(edited.version, [0, 1], executor=warm).values())",
        "print(run_parallel(lambda item: edited.version(item), [0], executor=warm).values())\nwarm.shutdown()",
        cwd=tmp_path,
    )
    assert "[1, 1]\n" == printed(outputs[1])
    assert "22 [22, 22]\n" == printed(outputs[3])
    assert "[22]\n" == printed(outputs[4])


def test_the_bar_is_a_widget_and_the_results_are_a_card():
    """The widget counts tasks to the end and shows what failed; the last expression shows as HTML."""
    outputs, widgets = execute(
        "from parallelkit import run_parallel",
        "run_parallel(lambda n: 12 // n, range(8), progress={'desc': 'divisions'})",
    )
    kinds = [output["output_type"] for output in outputs[1]]
    assert ["display_data", "execute_result"] == kinds
    assert "application/vnd.jupyter.widget-view+json" in outputs[1][0]["data"]
    bars = [widget for widget in widgets if widget.get("_model_name") == "FloatProgressModel"]
    texts = [
        widget["value"].replace("\u2007", " ")  # tqdm's spaces there are as wide as a digit
        for widget in widgets
        if widget.get("_model_name") == "HTMLModel"
    ]
    assert [(8.0, 8.0)] == [(bar["value"], bar["max"]) for bar in bars]
    assert any("divisions" in text for text in texts)
    assert any("8/8" in text and "1 failed" in text for text in texts)
    card = outputs[1][1]["data"]["text/html"]
    assert "8 tasks: 7 succeeded, 1 failed" in card
    assert "ZeroDivisionError" in card


def test_without_widgets_the_bar_is_text():
    """No warning of tqdm's, and no widget."""
    outputs, _ = execute(
        "import sys; sys.modules['ipywidgets'] = None\nfrom parallelkit import run_parallel",
        "results = run_parallel(abs, range(4), progress=True)",
    )
    assert {"stderr"} == {output["name"] for output in outputs[1]}
    text = "".join(output["text"] for output in outputs[1])
    assert "4/4" in text
    assert "Warning" not in text


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_the_stop_button_keeps_the_kernel_and_what_was_done(executor):
    """The cell ends at once; its results are in the exception, the next cell runs, and no worker is left."""
    outputs, _ = execute(
        "import sys, time, subprocess, threading\nfrom parallelkit import run_parallel\n"
        "def wait(seconds):\n    time.sleep(seconds)\n    return seconds\n"
        "def stop(event):\n    if event.kind == 'succeeded':\n        print('interrupt me')\n",
        f"run_parallel(wait, {{'short': 0.1, 'long': 600}}, executor={executor!r}, on_event=stop)",
        "results = sys.last_value.results\nprint(results.successes, list(results.failures), results.stopped)",
        f"print(run_parallel(wait, [0.01], executor={executor!r}).values())",
        "children = subprocess.run(['ps', '--ppid', str(__import__('os').getpid()), '-o', 'args='],\n"
        "                          capture_output=True, text=True).stdout\nprint('_worker' in children)",
    )
    assert "RunInterrupted" in printed(outputs[1])
    assert "{'short': 0.1} ['long'] interrupted (Ctrl-C)\n" == printed(outputs[2])
    assert "[0.01]\n" == printed(outputs[3])
    assert "False\n" == printed(outputs[4])


def test_tab_offers_the_keys_of_results():
    """As those of a dict, once the first characters of a text are there."""
    outputs, _ = execute(
        "from parallelkit import run_parallel\nresults = run_parallel(len, ['bern', 'berlin', 'oslo'], key=str)\n"
        "outcomes = results.outcomes",
        "import warnings; warnings.simplefilter('ignore')  # completions() is provisional\n"
        "for asked in ['results[\"ber', 'outcomes[\"os']:\n"
        "    print(sorted(each.text for each in get_ipython().Completer.completions(asked, len(asked))))",
    )
    assert "['berlin', 'bern']\n['oslo']\n" == printed(outputs[1])


def test_the_notebook_of_the_docs_does_what_it_shows(tmp_path):
    """Executed again, every cell prints what is stored in it; `jupyter execute --inplace FILE` stores it anew."""
    cells = [cell for cell in json.loads(TUTORIAL.read_text())["cells"] if cell["cell_type"] == "code"]
    outputs, _ = execute(*("".join(cell["source"]) for cell in cells), cwd=tmp_path)
    for cell, now in zip(cells, outputs, strict=True):
        stored = [{**output, "text": "".join(output.get("text", ""))} for output in cell["outputs"]]
        assert printed(stored) == printed(now), "".join(cell["source"])
        assert {output["output_type"] for output in stored} == {output["output_type"] for output in now}
