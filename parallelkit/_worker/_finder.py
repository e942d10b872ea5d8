"""Finds, in a worker, the program's modules that are off its ``sys.path`` (_executors/_process/_search_path.py)."""

from __future__ import annotations

from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import spec_from_file_location


class OffPathFinder:
    """A finder that is to come before all others, because another module along the path may have the same name.

    A place is the file of a module (None for a namespace package), and the folders of a package's modules.
    """

    def __init__(self, places: dict[str, tuple[str | None, list[str] | None]]) -> None:
        self._places = places

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Look the module up by its name; other modules are left to the usual finders."""
        if name not in self._places:
            return None
        file, locations = self._places[name]
        if file is not None:
            return spec_from_file_location(name, file, submodule_search_locations=locations)
        spec = ModuleSpec(name, None)
        spec.submodule_search_locations = locations
        return spec
