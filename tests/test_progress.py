import threading

import pytest

from parallelkit import iter_parallel, run_parallel


class NoScreen:
    """A file that cannot be written to."""

    encoding = "utf-8"

    def write(self, text):
        raise OSError("no screen")

    def flush(self):
        raise OSError("no screen")


BROKEN = {"file": NoScreen(), "disable": False}


def test_bar_that_fails_is_logged_once_and_the_run_goes_on(caplog):
    """Every task has its value, and one warning tells why the bar is gone."""
    assert [0, 1, 2] == run_parallel(abs, range(3), progress=BROKEN).values()
    assert ["the progress bar failed and is switched off; the run goes on"] == caplog.messages


def test_bar_that_fails_blocks_no_other_bar(caplog):
    """Neither in the same thread nor in another: tqdm's lock, which all bars share, is free again."""
    list(iter_parallel(abs, range(3), progress=BROKEN))  # drawn in a thread that ends
    run_parallel(abs, range(3), progress=BROKEN)
    later = threading.Thread(
        target=run_parallel, args=(abs, range(3)), kwargs={"progress": BROKEN}, daemon=True
    )
    later.start()
    later.join(10)
    assert not later.is_alive()
    assert 3 == len(caplog.messages)


@pytest.mark.parametrize("options", [{"no_such_option": 1}, {"total": "many"}])
def test_bad_option_of_the_bar_costs_the_bar_only(options, caplog):
    """The options of tqdm are its own to check; whatever it says, the run goes on."""
    assert [0, 1, 2] == run_parallel(abs, range(3), progress={"disable": False, **options}).values()
    assert 1 == len(caplog.messages)
