"""The values that pass between the loop and an executor."""

from parallelkit._executors._contract import Block, as_block


def test_rows_become_columns():
    """A block holds what the rows held, in their order."""
    rows = [(0, "a", 1.0, 2.0, "w"), (3, None, 1.5, 2.5, "x")]
    assert Block([0, 3], ["a", None], [1.0, 1.5], [2.0, 2.5], ["w", "x"]) == as_block(rows)


def test_no_rows_are_an_empty_block():
    """A block without rows still has its columns."""
    assert Block([], [], [], [], []) == as_block([])
