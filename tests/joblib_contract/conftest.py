"""joblib's tests are for `make test-all`; elsewhere they are not even imported."""

import pytest


def pytest_configure(config):
    for marker in ("no_cover", "thread_unsafe", "timeout"):
        config.addinivalue_line("markers", f"{marker}: joblib's")


def pytest_ignore_collect(config):
    return True if "not all" in config.option.markexpr else None


def pytest_collection_modifyitems(config, items):
    """Of joblib's tests keep the cases of our backend, and skip those that are left out, each with its reason."""
    here = [
        item
        for item in items
        if item.path.parent.name == "joblib_contract" and hasattr(item.module, "LEFT_OUT")
    ]
    others = [item for item in here if not is_ours(item)]
    for item in here:
        # What joblib expects to fail is of loky.
        item.own_markers = [marker for marker in item.own_markers if marker.name != "xfail"]
        for name, reason in item.module.LEFT_OUT.items():
            if name in (item.name, item.originalname):
                item.add_marker(pytest.mark.skip(reason=reason))
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def is_ours(item):
    """A case that names backends names ours among them, or the default."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    backends = [value for name, value in params.items() if "backend" in name and "n_jobs" not in name]
    return not backends or any(
        value in (None, "parallelkit") or type(value).__name__ == "ParallelkitBackend" for value in backends
    )
