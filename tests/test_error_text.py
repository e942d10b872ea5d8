"""parallelkit/_error_text.py: the text of an error with its traceback."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
from refusing import HiddenTraceback

from parallelkit import _error_text
from parallelkit._error_text import format_error
from parallelkit._lost import as_text
from parallelkit._worker import _faults


def fail(depth: int = 0) -> None:
    if depth:
        fail(depth - 1)
    raise ValueError("first")


def cause() -> None:
    try:
        fail(3)
    except ValueError as error:
        raise KeyError("second") from error


def context() -> None:
    try:
        cause()
    except KeyError:
        "text".no_such_method  # type: ignore[attr-defined]  # raises


def suppressed() -> None:
    try:
        fail()
    except ValueError:
        raise OSError(2, "third") from None


def misspelt() -> None:
    fial()  # type: ignore[name-defined]  # noqa: F821  # the text suggests another name, which only the frame tells


def group() -> None:
    errors: list[Exception] = []
    for function in (context, suppressed):
        try:
            function()
        except Exception as error:
            errors.append(error)
    raise ExceptionGroup("several", [*errors, TypeError("never raised")])


def noted() -> None:
    error = ValueError("with notes")
    error.add_note("one\ntwo")
    raise error


def circular() -> None:
    try:
        fail()
    except ValueError as error:
        error.__cause__ = KeyError("around")
        error.__cause__.__context__ = error
        raise


def no_syntax() -> None:
    compile("a b", "typed.py", "exec")


def recursion() -> None:
    fail(20)


RAISING = [fail, cause, context, suppressed, misspelt, group, noted, circular, no_syntax, recursion]


def raised_by(function: Callable[[], None]) -> Exception:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


@pytest.mark.parametrize("function", RAISING, ids=lambda function: function.__name__)
def test_the_text_is_that_of_the_traceback_module(function):
    """Whether an error comes for the first time or again, with whatever is chained to it."""
    for _ in range(2):
        error = raised_by(function)
        expected = "".join(traceback.format_exception(error))
        assert format_error(error, error.__traceback__) == expected
        assert format_error(error, None) == "".join(traceback.format_exception(type(error), error, None))


def test_frames_are_formatted_once(monkeypatch):
    """An error at the same place as one before, with another text, costs a tenth."""
    first, second = raised_by(fail), raised_by(fail)
    second.args = ("another",)
    monkeypatch.setattr(_error_text, "_known", {})
    before = format_error(first, first.__traceback__)
    monkeypatch.setattr(traceback, "extract_tb", None)
    monkeypatch.setattr(traceback.StackSummary, "format", None)
    assert format_error(second, second.__traceback__) == before.replace(
        "ValueError: first", "ValueError: another"
    )


def test_another_line_of_the_same_function_is_formatted_anew():
    """The place in the code counts, not only the code."""

    def divide(by: int) -> None:
        1 // by
        raise ValueError("it could")

    texts = [
        format_error(error, error.__traceback__)
        for error in (raised_by(lambda by=by: divide(by)) for by in (0, 1))
    ]
    assert ["1 // by" in text for text in texts] == [True, False]


def test_few_tracebacks_are_kept(monkeypatch):
    """A program that makes code without end keeps none of it for long."""
    monkeypatch.setattr(_error_text, "_known", {})
    monkeypatch.setattr(_error_text, "KEPT", 3)
    for number in range(10):
        error = raised_by(lambda number=number: eval(compile("\n" * number + "1 // 0", "made.py", "eval")))
        format_error(error, error.__traceback__)
        assert len(_error_text._known) <= 3


def test_deep_tracebacks_are_not_kept(monkeypatch):
    """Those of a recursion over data differ with the data: a few hundred, of a thousand frames each, would take 75 MB."""
    monkeypatch.setattr(_error_text, "_known", {})
    error = raised_by(lambda: fail(_error_text.DEEPEST))
    assert "".join(traceback.format_exception(error)) == format_error(error, error.__traceback__)
    assert not _error_text._known


class Variables:
    """Stands for the local variables of a formula; is asked for names alone, as that of patsy is, of which statsmodels makes models."""

    def __getitem__(self, name: str) -> object:
        raise KeyError(name)


def formula() -> None:
    eval("cube(x)", {}, Variables())


def hidden() -> None:
    raise HiddenTraceback


@pytest.mark.parametrize("cause", [formula, hidden])
@pytest.mark.parametrize("shown", [lambda error: as_text(error, error.__traceback__), _faults._text_of])
def test_an_error_whose_cause_cannot_be_shown_keeps_its_own_traceback(cause, shown):
    """From 3.12 on, Python looks among the variables for a name like the one that is missing, and raises what they raise."""

    def fit() -> None:
        try:
            cause()
        except Exception as error:
            raise ValueError("no such formula") from error

    text = shown(raised_by(fit))

    assert ", in fit\n    raise ValueError" in text
    assert "ValueError: no such formula\n" in text
