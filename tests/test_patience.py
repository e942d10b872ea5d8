"""Tests that are given more time: a pause spoils none, and a fault fails all."""

import inspect

import pytest
from patience import SCALES, given_time


@pytest.mark.parametrize("spoilt", range(len(SCALES) + 1))
def test_a_fault_fails_every_try(spoilt):
    """As many tries as there are scales, each with more time; the last one's error is the test's."""
    tries = []

    @given_time
    def tried(scale):
        tries.append(scale)
        assert len(tries) > spoilt

    if spoilt < len(SCALES):
        tried()
    else:
        with pytest.raises(AssertionError):
            tried()
    assert [*SCALES[: spoilt + 1]] == tries


def test_what_is_no_failure_of_an_assertion_is_raised_at_once():
    """An error of another kind is none of time."""

    @given_time
    def tried(scale):
        tries.append(scale)
        raise LookupError

    tries = []
    with pytest.raises(LookupError):
        tried()
    assert [SCALES[0]] == tries


def test_fixtures_are_passed_on(tmp_path):
    """By name; the scale is not asked for as one."""

    @given_time
    def tried(tmp_path, scale):
        seen.append((tmp_path, scale))

    seen = []
    tried(tmp_path=tmp_path)
    assert ["tmp_path"] == list(inspect.signature(tried).parameters)
    assert [(tmp_path, SCALES[0])] == seen
