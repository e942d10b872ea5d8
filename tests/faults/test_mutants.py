"""The bugs that ``make faults-mutants`` plants: if one no longer fits the code, the command cannot run when it is needed."""

import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_each_planted_bug_finds_its_place(mutant):
    """The text that it replaces occurs in the file exactly once."""
    for edit in mutant.edits:
        assert 1 == (mutants.ROOT / edit.file).read_text(encoding="utf-8").count(edit.old), edit
