"""CPython's tests are for `make test-all`; elsewhere they are not even imported."""


def pytest_ignore_collect(config):
    return True if "not all" in config.option.markexpr else None
