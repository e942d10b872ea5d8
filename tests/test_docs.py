import doctest
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import parallelkit
from parallelkit import http, joblib_backend, testing
from parallelkit._options import RunOptions

BESIDE = (http, joblib_backend, testing)  # public modules whose names are not the package's own

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in ROOT.glob("docs/**/*.md") if "_build" not in path.parts),
]

# They take seconds each, most of them to load their libraries.
HEAVY = {
    "dask.md",
    "migration.md",
    "pandas.md",
    "patterns.md",
    "polars.md",
    "scikit-learn.md",
    "timeouts.md",
    "tutorial.md",
    "why.md",
}

# A snippet, or one that the reader does not see; what it prints may stand right below it.
SNIPPET = re.compile(
    r"^(?:```|<!-- )python\n(.*?)^(?:```|-->)$(?:\n+```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)

# The same for shell commands.
COMMANDS = re.compile(r"^```bash\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)

CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def script_of(text):
    """The snippets of a page as one script with the line numbers of the page, and what it should print."""
    lines, output = [], ""
    for snippet in SNIPPET.finditer(text):
        lines += [""] * (text.count("\n", 0, snippet.start(1)) - len(lines))
        lines += snippet[1].splitlines()
        output += snippet[2] or ""
    return "\n".join(lines), output


FORKING = "import multiprocessing; multiprocessing.set_start_method('fork')\n" * (sys.version_info >= (3, 14))
"""From then on each worker of the standard pools would run the script, with the snippets before the one with the pool."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.all if page.name in HEAVY or "howto" in page.parts else [])
        for page in PAGES
        if SNIPPET.search(page.read_text())
    ],
    ids=name_of,
)
def test_snippets_do_what_the_page_says(page, tmp_path):
    """The snippets of a page, run one after another as one script, print what stands below them."""
    source, output = script_of(page.read_text())
    script = tmp_path / f"{page.stem}_page.py"  # pandas.py would be imported in place of pandas
    script.write_text(FORKING + source)

    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for _ in range(3):  # on a busy machine a call may take longer than the timeout that is shown
        run = subprocess.run(
            [sys.executable, "-W", "error", script],
            check=False,
            capture_output=True,
            text=True,
            timeout=50,
            cwd=tmp_path,
        )
        assert (0, "") == (run.returncode, run.stderr)
        if checker.check_output(output, run.stdout, flags):
            return
    pytest.fail(f"expected\n{output}\ngot\n{run.stdout}")


@pytest.mark.slow
@pytest.mark.all
@pytest.mark.parametrize("page", [page for page in PAGES if COMMANDS.search(page.read_text())], ids=name_of)
@pytest.mark.skipif(shutil.which("jq") is None, reason="the pages use jq (apt-get install jq)")
def test_commands_do_what_the_page_says(page, tmp_path):
    """The shell commands of a page, run one after another as one script, print what stands below them."""
    found = COMMANDS.findall(page.read_text())
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])

    run = subprocess.run(
        ["bash", "-c", "\n".join(commands for commands, _ in found)],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
    )

    assert 0 == run.returncode, run.stderr
    assert "rror" not in run.stderr.replace("FileNotFoundError", "")
    expected = "".join(output for _, output in found)
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert checker.check_output(expected, run.stdout, flags), f"expected\n{expected}\ngot\n{run.stdout}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_a_page_names_exist(page):
    """Where a page names a file of this project, in a link or in its text, the file is there."""
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", text)
    named = re.findall(r"`((?:tests|examples|parallelkit|benchmarks)/[\w/.-]+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [path for path in named if not (ROOT / path).exists()]
    assert [] == missing


def anchors_of(page):
    """The anchors that a page's headings get."""
    prose = CODE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_headings_that_a_page_links_to_exist(page):
    """A link to a heading, of this page or of another, leads there: a heading may have been renamed."""
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", page.read_text())
    targets = [(page.parent / path if path else page, anchor) for path, anchor in links]
    assert [] == [anchor for target, anchor in targets if anchor not in anchors_of(target)]


def test_reference_has_every_public_name():
    """Each public name has its entry in the reference, and the text of an entry its options."""
    reference = (ROOT / "docs/reference/index.md").read_text()
    entries = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", reference, re.MULTILINE))
    names = {
        *parallelkit.__all__,
        *(f"{module.__name__}.{name}" for module in BESIDE for name in module.__all__),
    }
    assert names - {"Outcome"} == entries

    options = set(re.findall(r"``(\w+)``", parallelkit.run_parallel.__doc__))
    assert [] == [name for name in RunOptions.__annotations__ if name not in options]
    assert [] == [name for name in RunOptions.__annotations__ if f"`{name}`" not in reference]


@pytest.mark.parametrize("name", parallelkit.__all__)
def test_examples_of_public_names_do_what_they_say(name):
    """Whoever tries the examples in the docstring of a public class, or of its methods, sees what they show."""
    public = getattr(parallelkit, name)
    names = {name: getattr(parallelkit, name) for name in parallelkit.__all__}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    if isinstance(public, type):  # functions are found where they are written
        for example in doctest.DocTestFinder().find(public, name, module=False, globs=names):
            runner.run(example)
    assert runner.failures == 0


def test_classes_are_at_home_in_the_package():
    """A traceback, a repr or a pickle names the package, not the module in which a class happens to be written."""
    homes = {
        name: getattr(parallelkit, name).__module__
        for name in parallelkit.__all__
        if isinstance(getattr(parallelkit, name), type)
    }
    assert {"parallelkit"} == set(homes.values()), homes


APART = {"_command", "_demo", "_report"}  # folders that the tour names as a whole


def test_the_design_tour_names_every_part():
    """Whoever looks for the place of a file in the way of the data finds it there, and no file that is gone."""
    tour = "".join(page.read_text() for page in sorted((ROOT / "docs/design").glob("*.md")))
    modules = [path for path in (ROOT / "parallelkit").rglob("*.py") if path.parent.name not in APART]
    names = {path.name for path in modules if not path.stem.startswith("__")}
    missing = {name for name in names if not re.search(rf"\b{name[:-3]}\b", tour)}
    assert not missing, f"say in a page of docs/design what these are for: {missing}"
    gone = set(re.findall(r"`(?:_\w+/)?(_\w+\.py)`", tour)) - {path.name for path in modules}
    assert not gone, f"docs/design names files that are no more: {gone}"


def test_the_design_names_tests_that_exist():
    """Where a page says which test fails if an invariant is broken, there is such a test."""
    pages = "".join(page.read_text() for page in (ROOT / "docs/design").glob("*.md"))
    tests = "".join(page.read_text() for page in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", pages)) | set(re.findall(r"`tests/([\w/]+\.py)`", pages))
    gone = {name for name in named if f"def {name}(" not in tests and not (ROOT / "tests" / name).is_file()}
    assert named
    assert not gone, f"docs/design names tests that are no more: {gone}"
