"""Finds the modules that the program has from places to which no look along ``sys.path`` leads."""

from __future__ import annotations

import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import spec_from_file_location


class StrayFinder:
    """Asked before any other, as another module may have the name.

    A place is a file, or none of a namespace package; and where the modules of a package are.
    """

    def __init__(self, places: dict[str, tuple[str | None, list[str] | None]]) -> None:
        self._places = places

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """By name alone; what is not found there is looked for as ever."""
        if name not in self._places:
            return None
        file, locations = self._places[name]
        if file is not None:
            return spec_from_file_location(name, file, submodule_search_locations=locations)
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = locations
        return spec


def find_strays(places: dict[str, tuple[str | None, list[str] | None]]) -> None:
    """From now on, wherever one of them is imported."""
    sys.meta_path.insert(0, StrayFinder(places))
