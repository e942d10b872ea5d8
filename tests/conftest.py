"""What holds for every test: nothing is left behind (leaks.py), and a hang ends the run (setup.cfg)."""

pytest_plugins = ["pytester", "leaks"]

# A file of typed usage, read by type checkers and never run.
collect_ignore = ["typing"]
