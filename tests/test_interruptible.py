"""Questions to the caller's code in the midst of a run: a Ctrl-C in it is kept for later, whatever that code does."""

import signal

import pytest

from parallelkit._interrupt import Interrupt, catch_interrupt
from parallelkit._marks import UNSET
from parallelkit._runs._interruptible import InterruptibleCall


@pytest.fixture
def interrupt():
    """The flag of a run that goes on, while it is asked for nothing."""
    interrupt = Interrupt()
    caught = catch_interrupt(interrupt)
    caught.__enter__()
    yield interrupt
    caught.__exit__(RuntimeError)  # what is asked for by then is a test's own affair


def press():
    signal.raise_signal(signal.SIGINT)


def press_and_answer():
    press()
    return 7


def press_and_swallow():
    try:
        press()
    except BaseException:
        return 7


def press_and_fail():
    try:
        press()
    finally:
        raise OSError("of its own")


def raise_by_itself():
    raise KeyboardInterrupt


def test_the_answer_is_given_on(interrupt):
    """What the caller's code returns or raises is returned or raised."""
    assert [7, None] == [InterruptibleCall(interrupt)(lambda answer=answer: answer) for answer in (7, None)]
    with pytest.raises(OSError, match="of its own"):
        InterruptibleCall(interrupt)(lambda: (_ for _ in ()).throw(OSError("of its own")))
    assert (False, False) == (interrupt.asked, interrupt.exposed)


@pytest.mark.parametrize("question", [press_and_answer, press_and_swallow, press_and_fail, raise_by_itself])
def test_what_ctrl_c_cuts_off_has_no_answer(interrupt, question):
    """Code that Ctrl-C cuts off has no answer, even if it swallows that or raises something else; the loop obeys it later."""
    assert UNSET is InterruptibleCall(interrupt)(question)
    assert (True, False) == (interrupt.asked, interrupt.exposed)
    with pytest.raises(KeyboardInterrupt):
        interrupt.obey()


def test_a_ctrl_c_from_before_cuts_nothing_off(interrupt):
    """The run will end soon, and what is asked by then mostly is as quick as ever; a second one is raised."""
    press()
    assert 7 == InterruptibleCall(interrupt)(lambda: 7)
    assert UNSET is InterruptibleCall(interrupt)(press_and_answer)
    assert interrupt.asked


def test_within_other_code_of_the_callers_everything_stays_exposed(interrupt):
    """A question within other code of the caller's leaves that exposed to Ctrl-C, as it was before."""
    with interrupt.user_code():
        assert [7, UNSET] == [
            InterruptibleCall(interrupt)(question) for question in (lambda: 7, raise_by_itself)
        ]
        assert interrupt.exposed
